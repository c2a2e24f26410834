//! A set of networks, for fast lookups among many.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Networks, as disjoint ranges of addresses in order. A million take 8 MB (IPv4) or 32 MB (IPv6), less where they touch.
///
/// An IPv4 address in IPv6 form (RFC 4291 §2.5.5.2) is that IPv4 address, in networks too. An IPv6 network that holds all of
/// these, such as `::/0`, holds no IPv4 address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkSet {
    v4: Ranges<u32>,
    v6: Ranges<u128>,
}

/// Apart, so that a search touches the begins alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Ranges<T> {
    first: Box<[T]>,
    last: Box<[T]>,
}

impl NetworkSet {
    /// Where the address is IPv4 in IPv6 form, it counts as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(v4) => self.v4.contains(v4.into()),
            IpAddr::V6(v6) => self.v6.contains(v6.into()),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.v4.first.is_empty() && self.v6.first.is_empty()
    }

    /// How many ranges it takes, once those that overlap or touch are one.
    pub fn ranges(&self) -> usize {
        self.v4.first.len() + self.v6.first.len()
    }
}

impl FromIterator<IpNet> for NetworkSet {
    fn from_iter<I: IntoIterator<Item = IpNet>>(networks: I) -> NetworkSet {
        let (mut v4, mut v6): (Vec<(u32, u32)>, Vec<(u128, u128)>) = Default::default();
        for network in networks {
            match network {
                IpNet::V4(net) => v4.push(ends4(net)),
                IpNet::V6(net) => match mapped(net) {
                    Some(net) => v4.push(ends4(net)),
                    None => v6.push((net.network().into(), net.broadcast().into())),
                },
            }
        }
        NetworkSet { v4: Ranges::new(v4, |last| last.checked_add(1)), v6: Ranges::new(v6, |last| last.checked_add(1)) }
    }
}

impl<T: Copy + Ord> Ranges<T> {
    fn new(mut ranges: Vec<(T, T)>, after: impl Fn(T) -> Option<T>) -> Ranges<T> {
        ranges.sort_unstable();
        ranges.dedup_by(|next, range| {
            let touches = after(range.1).is_none_or(|after| next.0 <= after);
            if touches {
                range.1 = range.1.max(next.1);
            }
            touches
        });
        Ranges {
            first: ranges.iter().map(|range| range.0).collect(),
            last: ranges.iter().map(|range| range.1).collect(),
        }
    }

    fn contains(&self, address: T) -> bool {
        let begun = self.first.partition_point(|first| *first <= address);
        begun.checked_sub(1).and_then(|index| self.last.get(index)).is_some_and(|last| address <= *last)
    }
}

fn ends4(net: Ipv4Net) -> (u32, u32) {
    (net.network().into(), net.broadcast().into())
}

/// The IPv4 network that this one is in IPv6 form.
fn mapped(net: Ipv6Net) -> Option<Ipv4Net> {
    const BITS: u8 = 96;
    let length = net.prefix_len().checked_sub(BITS)?;
    let address: Ipv6Addr = net.network();
    Ipv4Net::new(address.to_ipv4_mapped()?, length).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::networks;
    use crate::testing::cases;

    fn set(networks: &[&str]) -> NetworkSet {
        networks.iter().map(|net| net.parse::<IpNet>().unwrap()).collect()
    }

    fn holds(set: &NetworkSet, address: &str) -> bool {
        set.contains(address.parse().unwrap())
    }

    #[test]
    fn each_family_by_itself() {
        let both = set(&["10.0.0.0/8", "192.0.2.1/32", "2001:db8::/32", "::1/128"]);
        for inside in ["10.0.0.0", "10.255.255.255", "192.0.2.1", "::ffff:10.1.2.3", "2001:db8:ffff::1", "::1"] {
            assert!(holds(&both, inside), "{inside}");
        }
        for outside in ["9.255.255.255", "11.0.0.0", "192.0.2.0", "192.0.2.2", "::", "::2", "2001:db9::", "::10.0.0.1"]
        {
            assert!(!holds(&both, outside), "{outside}");
        }
        let (v4, v6) = (set(&["0.0.0.0/0"]), set(&["::/0"]));
        assert!(holds(&v4, "255.255.255.255") && holds(&v4, "::ffff:1.2.3.4") && !holds(&v4, "::"));
        assert!(holds(&v6, "ffff::") && !holds(&v6, "1.2.3.4") && !holds(&v6, "::ffff:1.2.3.4"));
        assert!(!holds(&NetworkSet::default(), "0.0.0.0") && NetworkSet::default().is_empty());
    }

    #[test]
    fn networks_in_ipv6_form_are_ipv4() {
        let mapped = set(&["::ffff:10.0.0.0/104", "::ffff:192.0.2.7/128"]);
        assert_eq!(mapped, set(&["10.0.0.0/8", "192.0.2.7/32"]));
    }

    #[test]
    fn what_touches_is_one_range() {
        assert_eq!(set(&["10.0.1.0/24", "10.0.0.0/24", "10.0.0.7/32", "10.0.2.0/23"]).ranges(), 1);
        assert_eq!(set(&["255.255.255.255/32", "0.0.0.0/32", "255.0.0.0/8"]).ranges(), 2);
        assert_eq!(set(&["::/0", "ffff::/16"]).ranges(), 1);
    }

    /// Figures: FORELAND_FIGURES=1 cargo test -- --nocapture a_million
    #[test]
    fn a_million_networks() {
        let mut state = 1u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 32) as u32
        };
        let size = if std::env::var_os("FORELAND_FIGURES").is_some() { 1_000_000 } else { 10_000 };
        let text: String = (0..size).map(|_| format!("{}/32\n", std::net::Ipv4Addr::from(next()))).collect();
        let began = std::time::Instant::now();
        let networks = networks::parse(&text).unwrap();
        let parsed = began.elapsed();
        let set: NetworkSet = networks.iter().copied().collect();
        let built = began.elapsed() - parsed;
        assert!(networks.iter().all(|net| set.contains(net.addr())));
        let addresses: Vec<IpAddr> = (0..size).map(|_| std::net::Ipv4Addr::from(next()).into()).collect();
        let began = std::time::Instant::now();
        let found = addresses.iter().filter(|address| set.contains(**address)).count();
        let each = began.elapsed() / size;
        assert!(found < addresses.len() / 100);
        println!(
            "{size} networks: {} ranges, parsed in {parsed:?}, built in {built:?}, {each:?} a lookup",
            set.ranges()
        );
    }

    fn network() -> impl Strategy<Value = IpNet> {
        let narrow = |bits: u32| bits & 0x0303_0103;
        prop_oneof![
            (any::<u32>(), 0u8..=32).prop_map(move |(bits, length)| {
                IpNet::V4(Ipv4Net::new(narrow(bits).into(), length).unwrap().trunc())
            }),
            (any::<u32>(), any::<bool>(), 0u8..=128).prop_map(move |(bits, mapped, length)| {
                let bits = u128::from(narrow(bits)) | if mapped { 0xffff << 32 } else { 0 };
                IpNet::V6(Ipv6Net::new(bits.into(), length).unwrap().trunc())
            }),
        ]
    }

    fn plainly(networks: &[IpNet], address: IpAddr) -> bool {
        let mapped = |v4: std::net::Ipv4Addr| IpAddr::V6(v4.to_ipv6_mapped());
        networks.iter().any(|net| match (net, address.to_canonical()) {
            (IpNet::V6(v6), IpAddr::V4(address)) => v6.prefix_len() >= 96 && net.contains(&mapped(address)),
            (_, address) => net.contains(&address),
        })
    }

    proptest! {
        #![proptest_config(cases(2_000))]

        /// As if each network were asked, at their ends above all.
        #[test]
        fn a_set_is_all_its_networks(networks in prop::collection::vec(network(), 0..8), bits in any::<u32>()) {
            let set: NetworkSet = networks.iter().copied().collect();
            let mut addresses: Vec<IpAddr> = vec![IpAddr::V4((bits & 0x0303_0103).into())];
            for net in &networks {
                addresses.extend([net.network(), net.broadcast()]);
                let beside = |address: IpAddr, by: i128| -> IpAddr {
                    match address {
                        IpAddr::V4(v4) => IpAddr::V4(u32::from(v4).wrapping_add(by as u32).into()),
                        IpAddr::V6(v6) => IpAddr::V6(u128::from(v6).wrapping_add(by as u128).into()),
                    }
                };
                addresses.extend([beside(net.network(), -1), beside(net.broadcast(), 1)]);
            }
            for address in addresses {
                prop_assert_eq!(set.contains(address), plainly(&networks, address), "{} in {:?}", address, networks);
            }
        }

        /// Files of networks: whatever is in them.
        #[test]
        fn any_text_is_a_list_or_a_mistake(text in "([0-9a-f:./# \\n]{0,40}|.{0,40}|([0-9]{1,3}\\.){3}[0-9]{1,3}(/[0-9]{1,3})?\n)*") {
            match networks::parse(&text) {
                Ok(networks) => {
                    let set: NetworkSet = networks.iter().copied().collect();
                    prop_assert!(networks.iter().all(|net| set.contains(net.network()) && set.contains(net.broadcast())));
                }
                Err((line, why)) => prop_assert!(line >= 1 && line <= text.lines().count() && !why.is_empty()),
            }
        }
    }
}
