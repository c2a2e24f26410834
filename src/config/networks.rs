//! Lists of networks: a text with an address or network a line.

use std::io::Read;
use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;

use super::node::quote;

/// The largest file of networks that is read: some two million lines.
pub const LARGEST_LIST: u64 = 32 << 20;

/// Reads a list of networks: an address or a network a line, IPv4 or IPv6. `#` begins a comment; lines may be empty.
///
/// # Errors
/// The first line that is neither (counted from 1), and what is wrong with it.
pub fn parse(text: &str) -> Result<Vec<IpNet>, (usize, String)> {
    let mut networks = Vec::new();
    // Some editors begin a file with a byte order mark, which belongs to no line.
    for (i, line) in text.strip_prefix('\u{feff}').unwrap_or(text).lines().enumerate() {
        let entry = line.split('#').next().unwrap_or_default().trim();
        if !entry.is_empty() {
            networks.push(network(entry).map_err(|why| (i + 1, why))?);
        }
    }
    Ok(networks)
}

/// Reads a file of networks of at most [`LARGEST_LIST`] bytes.
///
/// # Errors
/// Why it cannot be read, or its first line that is wrong; each names the file.
pub fn read(path: &Path) -> Result<Vec<IpNet>, String> {
    let shown = path.display();
    let file = std::fs::File::open(path).map_err(|why| format!("{shown} cannot be opened: {why}"))?;
    let mut bytes = Vec::new();
    file.take(LARGEST_LIST + 1).read_to_end(&mut bytes).map_err(|why| format!("{shown} cannot be read: {why}"))?;
    if bytes.len() as u64 > LARGEST_LIST {
        return Err(format!("{shown} is larger than {} MiB", LARGEST_LIST >> 20));
    }
    let text = String::from_utf8(bytes).map_err(|_| format!("{shown} is not UTF-8"))?;
    parse(&text).map_err(|(line, why)| format!("{shown}, line {line}: {why}"))
}

/// An address, or a network without bits beyond its prefix: with such, either the address or the prefix is a mistake.
///
/// # Errors
/// What is wrong, with the text in quotes.
pub fn network(text: &str) -> Result<IpNet, String> {
    let network: IpNet = match text.parse::<IpAddr>() {
        Ok(address) => address.into(),
        Err(_) => text
            .parse()
            .map_err(|_| format!("expected an IP address or network such as 10.0.0.0/8, found {}", quote(text)))?,
    };
    if network.trunc() != network {
        return Err(format!("{} has bits beyond its prefix; did you mean `{}`?", quote(text), network.trunc()));
    }
    Ok(canonical(network))
}

/// An IPv4 network that is written as IPv6 (`::ffff:10.0.0.0/104`) as IPv4: so are the addresses that are compared with it.
fn canonical(network: IpNet) -> IpNet {
    match (network.addr().to_canonical(), network.prefix_len().checked_sub(96)) {
        (IpAddr::V4(v4), Some(prefix)) if matches!(network, IpNet::V6(_)) => {
            IpNet::new(v4.into(), prefix).unwrap_or(network)
        }
        _ => network,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines() {
        let text = "\u{feff}# offices\r\n10.0.0.0/8\r\n\r\n  192.0.2.1 # the gate\n2001:db8::/32\n::1\n\t#\n0.0.0.0/0";
        let networks: Vec<String> = parse(text).unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(networks, ["10.0.0.0/8", "192.0.2.1/32", "2001:db8::/32", "::1/128", "0.0.0.0/0"]);
        assert_eq!(parse(""), Ok(Vec::new()));
        let mapped: Vec<String> = ["::ffff:10.0.0.0/104", "::ffff:192.0.2.1", "::/0", "::ffff:0:0/96"]
            .iter()
            .map(|text| network(text).unwrap().to_string())
            .collect();
        assert_eq!(mapped, ["10.0.0.0/8", "192.0.2.1/32", "::/0", "0.0.0.0/0"]);
    }

    #[test]
    fn the_line_that_is_wrong_is_named() {
        for (text, line, why) in [
            ("10.0.0.0/8\n\n10.0.0.1/8\n", 3, "\"10.0.0.1/8\" has bits beyond its prefix; did you mean `10.0.0.0/8`?"),
            ("example.com", 1, "expected an IP address or network such as 10.0.0.0/8, found \"example.com\""),
            ("::1\n10.0.0.0/33", 2, "expected an IP address or network such as 10.0.0.0/8, found \"10.0.0.0/33\""),
            (
                "10.0.0.1 10.0.0.2",
                1,
                "expected an IP address or network such as 10.0.0.0/8, found \"10.0.0.1 10.0.0.2\"",
            ),
            ("10.0.0.0/8;", 1, "expected an IP address or network such as 10.0.0.0/8, found \"10.0.0.0/8;\""),
        ] {
            assert_eq!(parse(text), Err((line, why.to_owned())), "{text}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        /// What is written is read again, in order.
        #[test]
        fn round_trip(bits in prop::collection::vec((any::<u128>(), any::<bool>(), 0u8..=128), 0..20)) {
            let networks: Vec<IpNet> = bits.into_iter().filter_map(|(bits, v4, prefix)| {
                let (address, prefix): (IpAddr, u8) = match v4 {
                    true => (std::net::Ipv4Addr::from((bits & 0xffff_ffff) as u32).into(), prefix.min(32)),
                    // Not among those that stand for IPv4.
                    false => (std::net::Ipv6Addr::from(bits | 1 << 127).into(), prefix),
                };
                IpNet::new(address, prefix).ok().map(|net| net.trunc())
            }).collect();
            let text: String = networks.iter().map(|net| format!("{net} # {net}\n")).collect();
            prop_assert_eq!(parse(&text), Ok(networks));
        }

        #[test]
        fn never_panics(text in "([0-9a-f:./#\n \t-]|\\PC){0,60}") {
            let _ = parse(&text);
        }
    }
}
