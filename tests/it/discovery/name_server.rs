//! A name server that answers by heart.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, SRV};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::super::harness::within;

/// Of each name, with a TTL of 1 s. There are no other names.
pub type Zone = HashMap<String, Vec<RData>>;

/// Runs until it is dropped.
pub struct NameServer {
    address: SocketAddr,
    zone: Arc<Mutex<Zone>>,
    silent: watch::Sender<bool>,
    /// The name of the newest question.
    newest: watch::Receiver<String>,
    task: AbortHandle,
}

impl NameServer {
    pub async fn start(zone: Zone) -> NameServer {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
        let address = socket.local_addr().expect("its address");
        let zone = Arc::new(Mutex::new(zone));
        let known = zone.clone();
        let silent = watch::Sender::new(false);
        let mut silence = silent.subscribe();
        let (asked, newest) = watch::channel(String::new());
        let serving = tokio::spawn(async move {
            let mut packet = [0; 1500];
            while let Ok((length, client)) = socket.recv_from(&mut packet).await {
                asked.send_replace(name_asked(&packet[..length]));
                let _ = silence.wait_for(|silent| !silent).await;
                let answer = answer(&known.lock().unwrap_or_else(PoisonError::into_inner), &packet[..length]);
                let _ = socket.send_to(&answer, client).await;
            }
        });
        NameServer { address, zone, silent, newest, task: serving.abort_handle() }
    }

    /// `address:port`.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Whether questions have to wait for their answers.
    pub fn set_silent(&self, silent: bool) {
        self.silent.send_replace(silent);
    }

    /// Waits until the newest question is for this name.
    pub async fn asked(&self, name: &str) {
        let mut newest = self.newest.clone();
        let waiting = newest.wait_for(|newest| newest == name);
        within(&format!("a question for {name}"), waiting).await.expect("the name server runs");
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

fn name_asked(packet: &[u8]) -> String {
    let asked = Message::from_vec(packet).expect("a question");
    asked.queries[0].name().to_ascii().trim_end_matches('.').to_owned()
}

fn answer(zone: &Zone, packet: &[u8]) -> Vec<u8> {
    let asked = Message::from_vec(packet).expect("a question");
    let query = asked.queries[0].clone();
    let mut answer = Message::response(asked.metadata.id, asked.metadata.op_code);
    match zone.get(&name_asked(packet)) {
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
