//! Databases of every layout, and damaged ones.

use std::fs;

use proptest::prelude::*;

use super::super::mmdb_writer::{Value, text, write};
use super::*;
use crate::testing::cases;

/// MaxMind's and DB-IP's.
fn nested(code: &str) -> Value {
    let names = Value::Map(vec![("de", text("Land")), ("en", text("Country"))]);
    Value::Map(vec![
        ("continent", Value::Map(vec![("code", text("EU")), ("names", names.clone())])),
        ("country", Value::Map(vec![("geoname_id", Value::U32(7)), ("iso_code", text(code)), ("names", names)])),
        ("registered_country", Value::Map(vec![("iso_code", text("ZZ"))])),
    ])
}

fn records(bytes: Vec<u8>, purpose: Purpose) -> Result<Geo, String> {
    let reader = Arc::new(ArcSwapOption::from_pointee(parse(bytes, purpose)?));
    let database = Some(Arc::new(Database { path: PathBuf::new(), reader, _watching: None }));
    Ok(match purpose {
        Purpose::Country => Geo { country: database, asn: None },
        Purpose::Asn => Geo { country: None, asn: database },
    })
}

fn country_of(geo: &Geo, address: &str) -> Option<String> {
    geo.country(address.parse().unwrap()).map(|code| String::from_utf8(code.to_vec()).unwrap())
}

#[test]
fn every_record_size() {
    for size in [24, 28, 32] {
        let networks = [("10.0.0.0/8", nested("DE")), ("10.1.0.0/16", nested("FR")), ("2001:db8::/32", nested("SE"))];
        let geo = records(write(size, &networks), Purpose::Country).unwrap();
        for (address, expected) in [
            ("10.0.0.1", Some("DE")),
            ("10.1.255.255", Some("FR")),
            ("10.2.0.0", Some("DE")),
            ("::ffff:10.1.0.0", Some("FR")),
            ("2001:db8::1", Some("SE")),
            ("11.0.0.0", None),
            ("2001:db9::", None),
        ] {
            assert_eq!(country_of(&geo, address).as_deref(), expected, "{address} at {size} bits");
        }
        assert_eq!(geo.asn("10.0.0.1".parse().unwrap()), None);
    }
}

#[test]
fn every_layout_of_countries() {
    let map = |pairs| Value::Map(pairs);
    for (record, expected) in [
        (nested("DE"), Some("DE")),
        (map(vec![("country", text("de"))]), Some("DE")),
        (map(vec![("country", text("Germany")), ("country_code", text("DE"))]), Some("DE")),
        (map(vec![("country_code", text("DE")), ("country_name", text("Germany"))]), Some("DE")),
        (map(vec![("registered_country", map(vec![("iso_code", text("DE"))]))]), Some("DE")),
        (map(vec![("country", map(vec![("geoname_id", Value::U32(1))]))]), None),
        (map(vec![("country", text("")), ("country_code", text("D1"))]), None),
        (map(vec![("country", Value::U32(49))]), None),
        (map(vec![("country", map(vec![("iso_code", map(vec![("iso_code", text("DE"))]))]))]), None),
        (text("DE"), None),
    ] {
        let networks = [("10.0.0.0/8", nested("SE")), ("11.0.0.0/8", record.clone())];
        let geo = records(write(24, &networks), Purpose::Country).unwrap();
        assert_eq!(country_of(&geo, "11.1.1.1").as_deref(), expected, "{record:?}");
    }
}

#[test]
fn every_layout_of_systems() {
    let map = |pairs| Value::Map(pairs);
    for (record, expected) in [
        (map(vec![("autonomous_system_number", Value::U32(64500))]), Some(64500)),
        (map(vec![("as_name", text("Some")), ("asn", text("AS64500"))]), Some(64500)),
        (map(vec![("asn", Value::U32(64500))]), Some(64500)),
        (map(vec![("asn", text("4294967295"))]), Some(u32::MAX)),
        (map(vec![("traits", map(vec![("autonomous_system_number", Value::U16(1))]))]), Some(1)),
        (map(vec![("asn", text("AS-1"))]), None),
        (map(vec![("asn", text("4294967296"))]), None),
        (map(vec![("asn", Value::U64(4_294_967_296))]), None),
        (map(vec![("country", text("DE"))]), None),
    ] {
        let good = map(vec![("asn", text("AS1"))]);
        let geo = records(write(28, &[("10.0.0.0/8", good), ("2001:db8::/32", record.clone())]), Purpose::Asn).unwrap();
        assert_eq!(geo.asn("2001:db8::1".parse().unwrap()), expected, "{record:?}");
    }
}

#[test]
fn the_wrong_file_is_an_error() {
    let refused = |bytes, purpose| records(bytes, purpose).err().unwrap();
    let country = write(24, &[("10.0.0.0/8", nested("DE"))]);
    assert!(
        refused(country, Purpose::Asn)
            .contains("has no autonomous system in its records (it says that it is \"Test\")")
    );
    assert!(refused(write(24, &[]), Purpose::Country).contains("has no country"));
    assert!(refused(Vec::new(), Purpose::Country).contains("is no database"));
    assert!(refused(b"\xab\xcd\xefMaxMind.com".to_vec(), Purpose::Country).contains("is no database"));
    let model = model::Geo { country: Some("/nowhere/a.mmdb".into()), ..model::Geo::default() };
    assert!(Geo::open(&model, None, None).err().unwrap().starts_with("/nowhere/a.mmdb cannot be opened"));
}

#[test]
fn a_watched_database_follows_its_file() {
    let path = std::env::temp_dir().join(format!("foreland-geo-{}.mmdb", std::process::id()));
    fs::write(&path, write(24, &[("10.0.0.0/8", nested("DE"))])).unwrap();
    let model = model::Geo { country: Some(path.clone()), ..model::Geo::default() };
    let watcher = Watcher::start().unwrap();
    let (sender, changed) = std::sync::mpsc::channel();
    let geo = Geo::open(&model, Some(&watcher), None).unwrap();
    let _probe = watcher.watch("probe", vec![path.clone()], move || sender.send(()).map_err(|e| e.to_string()));
    // Damaged: what was before stays.
    fs::write(&path, b"nothing").unwrap();
    while watcher.totals().failing == 0 {
        changed.recv_timeout(std::time::Duration::from_secs(30)).unwrap();
        fs::write(&path, b"nothing again").unwrap();
    }
    assert_eq!(country_of(&geo, "10.0.0.1").as_deref(), Some("DE"));
    // A reload takes over what is open.
    let again = Geo::open(&model, Some(&watcher), Some(&geo)).unwrap();
    drop(geo);
    fs::write(&path, write(24, &[("10.0.0.0/8", nested("SE"))])).unwrap();
    while country_of(&again, "10.0.0.1").as_deref() == Some("DE") {
        changed.recv_timeout(std::time::Duration::from_secs(30)).unwrap();
        fs::write(&path, write(28, &[("10.0.0.0/8", nested("SE"))])).unwrap();
    }
    assert_eq!(country_of(&again, "10.0.0.1").as_deref(), Some("SE"));
    let _ = fs::remove_file(&path);
}

/// Figures: FORELAND_FIGURES=1 cargo test -- --nocapture a_lookup_takes
#[test]
fn a_lookup_takes_little() {
    let names: Vec<String> = (0..=255u8).map(|n| format!("{n}.0.0.0/8")).collect();
    let networks: Vec<_> = names.iter().map(|name| (&**name, nested("DE"))).collect();
    let geo = records(write(28, &networks), Purpose::Country).unwrap();
    let count = if std::env::var_os("FORELAND_FIGURES").is_some() { 1_000_000 } else { 1_000 };
    let began = std::time::Instant::now();
    let found = (0..count).filter(|n: &u32| geo.country(IpAddr::V4((n * 4001).into())).is_some()).count();
    println!("{:?} a lookup", began.elapsed() / count);
    assert_eq!(found, count as usize);
}

proptest! {
    #![proptest_config(cases(2_000))]

    /// Bytes that are other than they were, missing, or too many: an answer or none, and never a panic or an endless search.
    #[test]
    fn damage_is_no_panic(
        size in prop::sample::select(vec![24u16, 28, 32]),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..12),
        cut in prop::option::weighted(0.2, any::<prop::sample::Index>()),
        addresses in prop::collection::vec(any::<u128>(), 1..8),
    ) {
        let record = |code| {
            let system = ("autonomous_system_number", Value::U32(7));
            let Value::Map(mut pairs) = nested(code) else { return nested(code) };
            pairs.push(system);
            Value::Map(pairs)
        };
        let networks = [("10.0.0.0/8", record("DE")), ("0.0.0.0/2", record("FR")), ("8000::/1", record("SE"))];
        let mut bytes = write(size, &networks);
        for (index, byte) in &changes {
            let index = index.index(bytes.len());
            bytes[index] = *byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        for purpose in [Purpose::Country, Purpose::Asn] {
            let Ok(geo) = records(bytes.clone(), purpose) else { continue };
            for bits in &addresses {
                for address in [IpAddr::V6((*bits).into()), IpAddr::V4((*bits as u32).into())] {
                    let (country, _) = (geo.country(address), geo.asn(address));
                    prop_assert!(country.is_none_or(|code| code.iter().all(u8::is_ascii_uppercase)));
                }
            }
        }
    }

    #[test]
    fn anything_is_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        // With metadata that can be read, so that the rest is looked at.
        let mut bytes = bytes;
        bytes.extend(b"\xab\xcd\xefMaxMind.com");
        let metadata = write(24, &[]);
        let marker = metadata.windows(14).position(|w| w == b"\xab\xcd\xefMaxMind.com").unwrap();
        bytes.extend(&metadata[marker + 14..]);
        let _ = parse(bytes, Purpose::Country);
    }
}
