//! Where an address is, by databases in MaxMind's format.
//!
//! Vendors lay their records out differently: `country.iso_code` (MaxMind, DB-IP, IP2Location), or a flat `country` or
//! `country_code` (IPinfo). Of a record, no more is decoded than what is asked for, and that without an allocation. A database
//! is read whole into memory: to map it would be at the mercy of whoever writes the file.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use log::info;
use maxminddb::{LookupResult, PathElement, Reader, WithinOptions};
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};

use crate::config::model;
use crate::watched::{self, Watcher, Watching};

/// The largest database that is read.
const LARGEST: u64 = 2 << 30;
/// So many networks are looked at to find one of which the database tells what it is there for.
const PROBED: usize = 100_000;

/// The databases of a configuration.
#[derive(Clone, Default)]
pub struct Geo {
    country: Option<Arc<Database>>,
    asn: Option<Arc<Database>>,
}

/// A file, which is watched for as long as a configuration has it.
struct Database {
    path: PathBuf,
    /// Always there, once it is open.
    reader: Arc<ArcSwapOption<Records>>,
    _watching: Option<Watching>,
}

type Records = Reader<Vec<u8>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Country,
    Asn,
}

impl Geo {
    /// Reads the databases, but those that `previous` has, and has them watched, if there is a watcher. What is wrong with
    /// them later changes nothing: the last good ones stay in force. Blocks.
    ///
    /// # Errors
    /// A file cannot be read, is no such database, or has nothing of what it is for.
    pub fn open(geo: &model::Geo, watcher: Option<&Watcher>, previous: Option<&Geo>) -> Result<Geo, String> {
        let open = |path: &Option<PathBuf>, purpose, previous: Option<&Arc<Database>>| {
            let Some(path) = path else { return Ok(None) };
            match previous.filter(|previous| previous.path == *path) {
                Some(previous) => Ok(Some(previous.clone())),
                None => Database::open(path, purpose, watcher).map(|database| Some(Arc::new(database))),
            }
        };
        Ok(Geo {
            country: open(&geo.country, Purpose::Country, previous.and_then(|geo| geo.country.as_ref()))?,
            asn: open(&geo.asn, Purpose::Asn, previous.and_then(|geo| geo.asn.as_ref()))?,
        })
    }

    /// ISO 3166-1 alpha-2, upper case; `None`: nothing is known of the address.
    pub fn country(&self, address: IpAddr) -> Option<[u8; 2]> {
        let records = self.country.as_ref()?.reader.load();
        country(&records.as_ref()?.lookup(address.to_canonical()).ok()?)
    }

    /// The number of the autonomous system that announces the address.
    pub fn asn(&self, address: IpAddr) -> Option<u32> {
        let records = self.asn.as_ref()?.reader.load();
        asn(&records.as_ref()?.lookup(address.to_canonical()).ok()?)
    }
}

impl Database {
    fn open(path: &Path, purpose: Purpose, watcher: Option<&Watcher>) -> Result<Database, String> {
        let reader: Arc<ArcSwapOption<Records>> = Arc::default();
        let load = {
            let (path, reader) = (path.to_owned(), reader.clone());
            move || load(&path, purpose, &reader)
        };
        let shown = path.display();
        let watching = match watcher {
            Some(watcher) => watcher.load(format!("the database {shown}"), vec![path.to_owned()], load).map(Some),
            None => load().map(|()| None),
        };
        let watching = watching.map_err(|why| format!("{shown} {why}"))?;
        Ok(Database { path: path.to_owned(), reader, _watching: watching })
    }
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Purpose::Country => "country",
            Purpose::Asn => "autonomous system",
        })
    }
}

fn load(path: &Path, purpose: Purpose, reader: &ArcSwapOption<Records>) -> Result<(), String> {
    let new = parse(watched::read(path, LARGEST)?, purpose)?;
    if reader.load().as_ref().is_some_and(|old| old.metadata() != new.metadata()) {
        info!("{}: the database of {} is in force", path.display(), built(&new));
    }
    reader.store(Some(Arc::new(new)));
    Ok(())
}

fn parse(bytes: Vec<u8>, purpose: Purpose) -> Result<Records, String> {
    let records = Reader::from_source(bytes).map_err(|why| format!("is no database of MaxMind's format: {why}"))?;
    // The wrong one of two files: nothing else would ever tell.
    if tells(&records, purpose) {
        return Ok(records);
    }
    Err(format!("has no {purpose} in its records (it says that it is {:?})", records.metadata().database_type))
}

/// Whether one of the first networks has what the database is for.
fn tells(records: &Records, purpose: Purpose) -> bool {
    // Those without data too: a damaged tree may have no end of them.
    let Ok(networks) = records.networks(WithinOptions::default().include_networks_without_data()) else {
        return false;
    };
    networks.take(PROBED).flatten().any(|record| match purpose {
        Purpose::Country => country(&record).is_some(),
        Purpose::Asn => asn(&record).is_some(),
    })
}

/// When its vendor made it.
fn built(records: &Records) -> String {
    httpdate::fmt_http_date(records.metadata().build_time().unwrap_or(std::time::SystemTime::UNIX_EPOCH))
}

fn country(record: &LookupResult<'_, Vec<u8>>) -> Option<[u8; 2]> {
    let of = |name| match record.decode_path::<Country>(&[PathElement::Key(name)]) {
        Ok(Some(Country(code))) => code,
        Ok(None) | Err(_) => None,
    };
    // IPinfo's `country` may be a name, with the code in `country_code`.
    of("country").or_else(|| of("country_code")).or_else(|| of("registered_country"))
}

fn asn(record: &LookupResult<'_, Vec<u8>>) -> Option<u32> {
    let of = |path: &[PathElement<'_>]| match record.decode_path::<System>(path) {
        Ok(Some(System(number))) => number,
        Ok(None) | Err(_) => None,
    };
    let key = PathElement::Key;
    let number = "autonomous_system_number";
    of(&[key(number)]).or_else(|| of(&[key("asn")])).or_else(|| of(&[key("traits"), key(number)]))
}

/// A code, or a map that has it as `iso_code`.
struct Country(Option<[u8; 2]>);

/// A code alone: maps within maps, which a damaged database may have without end, are none.
struct Code(Option<[u8; 2]>);

impl Code {
    fn of(text: &str) -> Code {
        Code(match text.as_bytes() {
            [a, b] if a.is_ascii_alphabetic() && b.is_ascii_alphabetic() => {
                Some([a.to_ascii_uppercase(), b.to_ascii_uppercase()])
            }
            _ => None,
        })
    }
}

impl<'de> Deserialize<'de> for Code {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Code, D::Error> {
        <&str>::deserialize(deserializer).map(Code::of)
    }
}

impl<'de> Deserialize<'de> for Country {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Country, D::Error> {
        struct Look;
        impl<'de> Visitor<'de> for Look {
            type Value = Country;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a country")
            }

            fn visit_str<E>(self, text: &str) -> Result<Country, E> {
                Ok(Country(Code::of(text).0))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Country, A::Error> {
                while let Some(key) = map.next_key::<&str>()? {
                    if key == "iso_code" {
                        // What follows, its names in all languages, is not looked at.
                        return Ok(Country(map.next_value::<Code>()?.0));
                    }
                    map.next_value::<IgnoredAny>()?;
                }
                Ok(Country(None))
            }
        }
        deserializer.deserialize_any(Look)
    }
}

/// A number, or its text, which may begin with `AS`.
struct System(Option<u32>);

impl<'de> Deserialize<'de> for System {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<System, D::Error> {
        struct Look;
        impl Visitor<'_> for Look {
            type Value = System;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an autonomous system")
            }

            fn visit_u64<E>(self, number: u64) -> Result<System, E> {
                Ok(System(u32::try_from(number).ok()))
            }

            fn visit_str<E>(self, text: &str) -> Result<System, E> {
                let digits = text.strip_prefix("AS").unwrap_or(text);
                Ok(System(digits.parse().ok()))
            }
        }
        deserializer.deserialize_any(Look)
    }
}

#[cfg(test)]
#[path = "geo_tests.rs"]
mod tests;
