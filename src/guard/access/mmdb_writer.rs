//! Writes small databases in MaxMind's format (maxmind.github.io/MaxMind-DB), for tests.

use std::net::IpAddr;

use ipnet::IpNet;

/// What a record may hold.
#[derive(Clone, Debug)]
pub enum Value {
    Text(String),
    U16(u16),
    U32(u32),
    U64(u64),
    Map(Vec<(&'static str, Value)>),
    Array(Vec<Value>),
}

pub fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

#[derive(Clone, Copy)]
enum Record {
    Empty,
    Node(usize),
    Data(usize),
}

/// A database of IPv6, in which IPv4 is below `::/96`. `record_size` is 24, 28 or 32 bits. Of networks that overlap, the
/// wider stand first.
pub fn write(record_size: u16, networks: &[(&str, Value)]) -> Vec<u8> {
    let mut nodes = vec![[Record::Empty; 2]];
    let (mut data, mut offsets) = (Vec::new(), Vec::new());
    for (network, value) in networks {
        offsets.push(data.len());
        encode(value, &mut data);
        insert(&mut nodes, &network.parse().unwrap(), offsets.len() - 1);
    }
    let mut file = Vec::new();
    let number = |record: Record| match record {
        Record::Empty => nodes.len(),
        Record::Node(node) => node,
        Record::Data(index) => nodes.len() + 16 + offsets[index],
    };
    for [left, right] in &nodes {
        let (left, right) = (number(*left) as u32, number(*right) as u32);
        match record_size {
            24 => file.extend([&left.to_be_bytes()[1..], &right.to_be_bytes()[1..]].concat()),
            28 => {
                file.extend(&left.to_be_bytes()[1..]);
                file.push(((left >> 24) << 4 | right >> 24) as u8);
                file.extend(&right.to_be_bytes()[1..]);
            }
            _ => file.extend([left.to_be_bytes(), right.to_be_bytes()].concat()),
        }
    }
    file.extend([0; 16]);
    file.extend(data);
    file.extend(b"\xab\xcd\xefMaxMind.com");
    let metadata = Value::Map(vec![
        ("binary_format_major_version", Value::U16(2)),
        ("binary_format_minor_version", Value::U16(0)),
        ("build_epoch", Value::U64(1_700_000_000)),
        ("database_type", text("Test")),
        ("description", Value::Map(vec![("en", text("A test"))])),
        ("ip_version", Value::U16(6)),
        ("languages", Value::Array(vec![text("en")])),
        ("node_count", Value::U32(nodes.len() as u32)),
        ("record_size", Value::U16(record_size)),
    ]);
    encode(&metadata, &mut file);
    file
}

fn insert(nodes: &mut Vec<[Record; 2]>, network: &IpNet, data: usize) {
    let (bits, length) = match network.addr() {
        IpAddr::V4(v4) => (u128::from(u32::from(v4)), network.prefix_len() + 96),
        IpAddr::V6(v6) => (v6.into(), network.prefix_len()),
    };
    let mut node = 0;
    for depth in 0..length {
        let side = (bits >> (127 - depth) & 1) as usize;
        if depth + 1 == length {
            nodes[node][side] = Record::Data(data);
            return;
        }
        node = match nodes[node][side] {
            Record::Node(next) => next,
            // What the wider network has goes to both halves.
            wider => {
                nodes.push([wider; 2]);
                let next = nodes.len() - 1;
                nodes[node][side] = Record::Node(next);
                next
            }
        };
    }
}

fn encode(value: &Value, to: &mut Vec<u8>) {
    let number = |kind: u8, bytes: &[u8], to: &mut Vec<u8>| {
        let bytes = &bytes[bytes.iter().take_while(|byte| **byte == 0).count()..];
        control(kind, bytes.len(), to);
        to.extend(bytes);
    };
    match value {
        Value::Text(text) => {
            control(2, text.len(), to);
            to.extend(text.as_bytes());
        }
        Value::U16(value) => number(5, &value.to_be_bytes(), to),
        Value::U32(value) => number(6, &value.to_be_bytes(), to),
        Value::U64(value) => number(9, &value.to_be_bytes(), to),
        Value::Map(pairs) => {
            control(7, pairs.len(), to);
            for (key, value) in pairs {
                encode(&text(key), to);
                encode(value, to);
            }
        }
        Value::Array(values) => {
            control(11, values.len(), to);
            values.iter().for_each(|value| encode(value, to));
        }
    }
}

/// The control byte and what goes with it, for sizes below 285.
fn control(kind: u8, size: usize, to: &mut Vec<u8>) {
    let (in_byte, more) = if size < 29 { (size, None) } else { (29, Some((size - 29) as u8)) };
    let kind_in_byte = if kind > 7 { 0 } else { kind };
    to.push(kind_in_byte << 5 | in_byte as u8);
    if kind > 7 {
        to.push(kind - 7);
    }
    to.extend(more);
}
