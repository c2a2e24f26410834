//! What has changed about a pool's servers, in words.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::origin::member::Member;

/// Servers of each kind that are named: a line of a log is no list.
const NAMED: usize = 20;

/// What came, went and is treated differently. `None`: nothing that can be seen from outside.
pub(super) fn between(before: &[Arc<Member>], after: &[Arc<Member>]) -> Option<String> {
    let old: HashMap<_, _> = before.iter().map(|member| (member.endpoint(), &member.found)).collect();
    let new: HashSet<_> = after.iter().map(|member| member.endpoint()).collect();
    let came = after.iter().filter(|member| !old.contains_key(member.endpoint())).map(|member| called(member));
    let went = before.iter().filter(|member| !new.contains(member.endpoint())).map(|member| called(member));
    let changed = after.iter().filter(|member| old.get(member.endpoint()).is_some_and(|found| **found != member.found));
    let changed = changed
        .map(|member| format!("{} (weight {}, tier {})", called(member), member.found.weight, member.found.tier));
    let parts = [("came", list(came)), ("went", list(went)), ("changed", list(changed))];
    let told: Vec<String> =
        parts.into_iter().filter_map(|(what, list)| list.map(|list| format!("{what}: {list}"))).collect();
    (!told.is_empty()).then(|| told.join("; "))
}

/// As the operator calls it, and where it is.
fn called(member: &Member) -> String {
    let (text, endpoint) = (&member.found.text, member.endpoint().to_string());
    if *text == endpoint { endpoint } else { format!("{text} at {endpoint}") }
}

fn list(mut names: impl Iterator<Item = String>) -> Option<String> {
    let named: Vec<String> = names.by_ref().take(NAMED).collect();
    if named.is_empty() {
        return None;
    }
    let text = named.join(", ");
    Some(match names.count() {
        0 => text,
        more => format!("{text} and {more} more"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::{Origin, Server, ServerAddress};
    use crate::origin::discovery::Found;
    use crate::origin::health::Watch;
    use crate::origin::member::Slot;

    fn member(last: u8, text: &str, weight: usize) -> Arc<Member> {
        let address = ServerAddress::Name { host: "a.test".to_owned(), port: 80 };
        let slot = Slot::new(0, &Server { address, weight, tier: 0 }, |_| None);
        let endpoint = std::net::SocketAddr::from(([10, 0, 0, last], 80)).into();
        slot.member(
            Found { endpoint, text: text.to_owned(), weight, tier: 1 },
            &Watch::new(&Origin::plain("o", Vec::new())),
            Arc::default(),
        )
    }

    #[test]
    fn what_came_went_and_changed_is_named() {
        let before = [member(1, "a.test:80", 1), member(2, "10.0.0.2:80", 1), member(3, "a.test:80", 1)];
        let after = [member(1, "a.test:80", 1), member(3, "a.test:80", 5), member(4, "10.0.0.4:80", 1)];
        assert_eq!(between(&before, &before), None);
        assert_eq!(
            between(&before, &after).as_deref(),
            Some("came: 10.0.0.4:80; went: 10.0.0.2:80; changed: a.test:80 at 10.0.0.3:80 (weight 5, tier 1)")
        );
    }

    #[test]
    fn a_long_list_is_cut() {
        let many: Vec<_> = (0..100).map(|last| member(last, "a.test:80", 1)).collect();
        let text = between(&[], &many).unwrap();
        assert!(text.ends_with("10.0.0.19:80 and 80 more"), "{text}");
    }
}
