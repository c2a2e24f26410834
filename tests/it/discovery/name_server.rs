//! A name server that answers by heart.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, SRV};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use tokio::net::UdpSocket;
use tokio::task::AbortHandle;

/// Of each name, with a TTL of 1 s. There are no other names.
pub type Zone = HashMap<String, Vec<RData>>;

/// Runs until it is dropped.
pub struct NameServer {
    address: SocketAddr,
    zone: Arc<Mutex<Zone>>,
    task: AbortHandle,
}

impl NameServer {
    pub async fn start(zone: Zone) -> NameServer {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
        let address = socket.local_addr().expect("its address");
        let zone = Arc::new(Mutex::new(zone));
        let known = zone.clone();
        let serving = tokio::spawn(async move {
            let mut packet = [0; 1500];
            while let Ok((length, client)) = socket.recv_from(&mut packet).await {
                let answer = answer(&known.lock().unwrap_or_else(PoisonError::into_inner), &packet[..length]);
                let _ = socket.send_to(&answer, client).await;
            }
        });
        NameServer { address, zone, task: serving.abort_handle() }
    }

    /// `address:port`.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Learns something else.
    pub fn say(&self, zone: Zone) {
        *self.zone.lock().unwrap_or_else(PoisonError::into_inner) = zone;
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub fn a(last: u8) -> RData {
    RData::A(A(Ipv4Addr::new(127, 0, 0, last)))
}

pub fn srv(priority: u16, weight: u16, port: u16, target: &str) -> RData {
    RData::SRV(SRV::new(priority, weight, port, Name::from_ascii(target).expect("a name")))
}

fn answer(zone: &Zone, packet: &[u8]) -> Vec<u8> {
    let asked = Message::from_vec(packet).expect("a question");
    let query = asked.queries[0].clone();
    let mut answer = Message::response(asked.metadata.id, asked.metadata.op_code);
    match zone.get(query.name().to_ascii().trim_end_matches('.')) {
        Some(data) => {
            let of_type = |data: &&RData| match query.query_type() {
                RecordType::A => matches!(data, RData::A(_)),
                RecordType::SRV => matches!(data, RData::SRV(_)),
                _ => false,
            };
            let record = |data: &RData| Record::from_rdata(query.name().clone(), 1, data.clone());
            answer.add_answers(data.iter().filter(of_type).map(record));
        }
        None => answer.metadata.response_code = ResponseCode::NXDomain,
    }
    answer.add_query(query);
    answer.to_vec().expect("an answer")
}
