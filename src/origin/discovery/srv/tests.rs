use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::Name;
use proptest::prelude::*;

use super::*;
use crate::config::model::ServerAddress;
use crate::origin::discovery::script::{NameServer, Script, Srv};
use crate::origin::discovery::servers_of;

const NAME: &str = "_http._tcp.test";

fn entry(weight: usize, tier: u8) -> Server {
    Server { address: ServerAddress::Srv(NAME.to_owned()), weight, tier }
}

/// Endpoint, text, weight and tier of each server that an entry leads to.
fn servers(resolved: &Resolved, entry: &Server) -> Vec<(String, String, usize, u8)> {
    let found = servers_of(entry, Some(&resolved.answer));
    found.into_iter().map(|found| (found.endpoint.to_string(), found.text, found.weight, found.tier)).collect()
}

fn expected(servers: &[(&str, &str, usize, u8)]) -> Vec<(String, String, usize, u8)> {
    servers
        .iter()
        .map(|(endpoint, text, weight, tier)| (endpoint.to_string(), text.to_string(), *weight, *tier))
        .collect()
}

fn known(resolved: &Resolved) -> &[Target] {
    match &resolved.answer {
        Answer::Targets(targets) => targets,
        Answer::Addresses(_) => panic!("addresses"),
    }
}

async fn ask(server: &NameServer) -> Result<Resolved, String> {
    lookup(NAME, &[], &server.resolver()).await
}

#[tokio::test]
async fn each_record_leads_to_the_addresses_of_its_target() {
    let records: &[Srv<'_>] = &[(20, 5, 8080, "C.test."), (10, 3, 80, "b.test."), (10, 0, 81, "a.test.")];
    let script = Script::default()
        .srv(NAME, Ok(records))
        .a("a.test", Ok(&["10.0.0.2", "10.0.0.1"]))
        .a("b.test", Ok(&["10.0.0.3"]))
        .a("c.test", Ok(&[]))
        .aaaa("c.test", Ok(&["2001:db8::1"]));
    let resolved = ask(&NameServer::start(script).await).await.unwrap();
    assert_eq!(resolved.trouble, None);
    let all = [
        ("10.0.0.1:81", "a.test:81", 1, 2),
        ("10.0.0.2:81", "a.test:81", 1, 2),
        ("10.0.0.3:80", "b.test:80", 3, 2),
        ("[2001:db8::1]:8080", "c.test:8080", 5, 3),
    ];
    assert_eq!(servers(&resolved, &entry(7, 2)), expected(&all));
    let drained = all.map(|(endpoint, text, _, tier)| (endpoint, text, 0, tier - 2));
    assert_eq!(servers(&resolved, &entry(0, 0)), expected(&drained));
    assert!(servers(&resolved, &entry(1, 15)).iter().all(|(.., tier)| *tier == 15));
}

#[tokio::test]
async fn the_smaller_ttl_is_in_force() {
    for (of_srv, of_a, most) in [(40, 200, 40), (200, 30, 30)] {
        let script = Script::default().ttl(of_srv).srv(NAME, Ok(&[(1, 1, 80, "a.test.")]));
        let server = NameServer::start(script.ttl(of_a).a("a.test", Ok(&["10.0.0.1"]))).await;
        let ttl = ask(&server).await.unwrap().ttl;
        assert!(ttl <= Duration::from_secs(most) && ttl > Duration::from_secs(most - 20), "{ttl:?}");
    }
}

#[tokio::test]
async fn a_dot_is_nobody_and_no_failure() {
    let server = NameServer::start(Script::default().srv(NAME, Ok(&[(0, 0, 0, ".")]))).await;
    let resolved = ask(&server).await.unwrap();
    assert_eq!((known(&resolved), resolved.trouble.clone()), (&[][..], None));
}

#[tokio::test]
async fn without_records_it_is_a_failure() {
    for outcome in [Ok(&[][..]), Err(ResponseCode::NXDomain), Err(ResponseCode::ServFail)] {
        let server = NameServer::start(Script::default().srv(NAME, outcome)).await;
        assert!(ask(&server).await.is_err(), "{outcome:?}");
    }
}

#[tokio::test]
async fn a_target_that_does_not_resolve_keeps_its_addresses() {
    let records: &[Srv<'_>] = &[(1, 1, 80, "a.test."), (1, 1, 80, "b.test.")];
    let script = Script::default().srv(NAME, Ok(records)).a("a.test", Ok(&["10.0.0.1"]));
    let server = NameServer::start(script.clone().a("b.test", Ok(&["10.0.0.2"]))).await;
    let before = ask(&server).await.unwrap();

    server.say(script.clone().a("b.test", Err(ResponseCode::ServFail)));
    let after = lookup(NAME, known(&before), &server.resolver()).await.unwrap();
    assert_eq!(after.answer, before.answer);
    assert!(after.trouble.as_ref().is_some_and(|trouble| trouble.starts_with("b.test: ")), "{after:?}");
    // Who has never been resolved is left out.
    let fresh = ask(&server).await.unwrap();
    assert_eq!(servers(&fresh, &entry(1, 0)), expected(&[("10.0.0.1:80", "a.test:80", 1, 0)]));

    server.say(Script::default().srv(NAME, Ok(records)));
    assert!(ask(&server).await.unwrap_err().contains("a.test: "));
}

#[tokio::test]
async fn what_is_no_host_is_no_server() {
    let records: &[Srv<'_>] = &[(1, 1, 80, "*.test."), (1, 1, 0, "b.test."), (1, 1, 80, "c.test.")];
    let script = Script::default().srv(NAME, Ok(records)).a("c.test", Ok(&["10.0.0.3"]));
    let resolved = ask(&NameServer::start(script).await).await.unwrap();
    assert_eq!(servers(&resolved, &entry(1, 0)), expected(&[("10.0.0.3:80", "c.test:80", 1, 0)]));
    let trouble = resolved.trouble.unwrap();
    assert!(trouble.contains("not the name of a host") && trouble.contains("b.test: its port is 0"), "{trouble}");
}

fn record(priority: u16, weight: u16, port: u16, host: &str) -> SRV {
    SRV::new(priority, weight, port, Name::from_ascii(host).unwrap())
}

#[test]
fn weights_are_scaled_within_a_priority() {
    let records =
        [record(5, 65535, 1, "a."), record(5, 32768, 2, "a."), record(5, 0, 3, "a."), record(9, 256, 4, "a.")];
    let (targets, troubles) = targets(&records);
    let weights: Vec<_> = targets.iter().map(|target| (target.port, target.weight, target.rank)).collect();
    assert_eq!(weights, [(1, 256, 0), (2, 128, 0), (3, 1, 0), (4, 256, 1)]);
    assert!(troubles.is_empty());
}

#[test]
fn a_target_that_comes_twice_counts_once() {
    let (targets, _) = targets(&[record(9, 1, 80, "a."), record(2, 7, 80, "A."), record(2, 1, 81, "a.")]);
    let found: Vec<_> = targets.iter().map(|target| (target.port, target.weight, target.rank)).collect();
    assert_eq!(found, [(80, 7, 0), (81, 1, 0)]);
}

#[test]
fn too_many_records_are_cut() {
    let records: Vec<SRV> = (1..=300).map(|port| record(1, 1, port, "a.")).collect();
    let (targets, troubles) = targets(&records);
    assert_eq!((targets.len(), troubles.len()), (MAX_SERVERS, 1));
}

proptest! {
    #[test]
    fn every_answer_makes_sense(records in proptest::collection::vec((0u16..20, any::<u16>(), any::<u16>(), "[a-c]\\."), 0..40)) {
        let records: Vec<SRV> =
            records.iter().map(|(priority, weight, port, host)| record(*priority, *weight, *port, host)).collect();
        let (found, _) = targets(&records);
        for target in &found {
            prop_assert!((1..=MAX_WEIGHT).contains(&target.weight) && target.rank <= MAX_TIER && target.port > 0);
        }
        prop_assert!(found.is_empty() || found[0].rank == 0);
        prop_assert!(found.windows(2).all(|pair| pair[0].rank <= pair[1].rank && pair[1].rank - pair[0].rank <= 1));
        // The order of the records is of no matter.
        let reversed: Vec<SRV> = records.into_iter().rev().collect();
        prop_assert_eq!(found, targets(&reversed).0);
    }
}
