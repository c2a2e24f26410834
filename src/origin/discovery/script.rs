//! A name server that answers by heart, for tests.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::rdata::SRV;
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use tokio::net::UdpSocket;
use tokio::task::AbortHandle;

use super::resolver::Resolver;

/// Priority, weight, port and target.
pub(super) type Srv<'a> = (u16, u16, u16, &'a str);

/// With their TTLs; or another code than that of success.
type Records = Result<Vec<(RData, u32)>, ResponseCode>;

/// What it says; of names and types that it does not know, that there is no such name.
#[derive(Clone, Debug)]
pub(super) struct Script {
    answers: HashMap<(String, RecordType), Records>,
    ttl: u32,
}

/// Runs until it is dropped.
pub(super) struct NameServer {
    address: SocketAddr,
    script: Arc<Mutex<Script>>,
    task: AbortHandle,
}

impl Default for Script {
    fn default() -> Script {
        Script { answers: HashMap::new(), ttl: 60 }
    }
}

impl Script {
    /// Of the answers that are added from now on; 60 s before.
    pub(super) fn ttl(mut self, ttl: u32) -> Script {
        self.ttl = ttl;
        self
    }

    pub(super) fn a(self, name: &str, addresses: Result<&[&str], ResponseCode>) -> Script {
        self.ips(name, RecordType::A, addresses)
    }

    pub(super) fn aaaa(self, name: &str, addresses: Result<&[&str], ResponseCode>) -> Script {
        self.ips(name, RecordType::AAAA, addresses)
    }

    pub(super) fn srv(self, name: &str, records: Result<&[Srv<'_>], ResponseCode>) -> Script {
        let record = |(priority, weight, port, target): &Srv<'_>| {
            RData::SRV(SRV::new(*priority, *weight, *port, Name::from_ascii(target).unwrap()))
        };
        self.with(name, RecordType::SRV, records.map(|records| records.iter().map(record).collect()))
    }

    fn ips(self, name: &str, kind: RecordType, addresses: Result<&[&str], ResponseCode>) -> Script {
        let record = |address: &&str| RData::from(address.parse::<IpAddr>().unwrap());
        self.with(name, kind, addresses.map(|addresses| addresses.iter().map(record).collect()))
    }

    fn with(mut self, name: &str, kind: RecordType, data: Result<Vec<RData>, ResponseCode>) -> Script {
        let ttl = self.ttl;
        let data = data.map(|data| data.into_iter().map(|data| (data, ttl)).collect());
        self.answers.insert((name.to_owned(), kind), data);
        self
    }

    fn answer(&self, packet: &[u8]) -> Vec<u8> {
        let asked = Message::from_vec(packet).unwrap();
        let query = asked.queries[0].clone();
        let name = query.name().to_ascii().trim_end_matches('.').to_ascii_lowercase();
        let mut answer = Message::response(asked.metadata.id, asked.metadata.op_code);
        match self.answers.get(&(name, query.query_type())) {
            Some(Ok(records)) => {
                let record = |(data, ttl): &(RData, u32)| Record::from_rdata(query.name().clone(), *ttl, data.clone());
                answer.add_answers(records.iter().map(record));
            }
            Some(Err(code)) => answer.metadata.response_code = *code,
            None => answer.metadata.response_code = ResponseCode::NXDomain,
        }
        answer.add_query(query);
        answer.to_vec().unwrap()
    }
}

impl NameServer {
    pub(super) async fn start(script: Script) -> NameServer {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let script = Arc::new(Mutex::new(script));
        let says = script.clone();
        let serving = tokio::spawn(async move {
            let mut packet = [0; 1500];
            while let Ok((length, client)) = socket.recv_from(&mut packet).await {
                let answer = says.lock().unwrap_or_else(PoisonError::into_inner).answer(&packet[..length]);
                socket.send_to(&answer, client).await.unwrap();
            }
        });
        NameServer { address, script, task: serving.abort_handle() }
    }

    /// Learns something else.
    pub(super) fn say(&self, script: Script) {
        *self.script.lock().unwrap_or_else(PoisonError::into_inner) = script;
    }

    /// Asks it, and nobody else.
    pub(super) fn resolver(&self) -> Resolver {
        Resolver::asking(self.address)
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}
