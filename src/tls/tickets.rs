//! Session tickets (RFC 5077, RFC 8446 §4.6.1): what a session resumes from is with the client, sealed.
//!
//! The keys follow from a secret and from the time, so that they rotate without anybody's doing, and edges with the same
//! secret have the same ones: nothing has to be handed round but the secret. That of a process without one in its
//! configuration is random, and goes to the next process in an upgrade. A ticket opens until the key after its own has gone
//! out of use: at least [`EPOCH`], at most twice that.

use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac::{self, HMAC_SHA256};
use rustix::rand::{GetRandomFlags, getrandom};
use rustls::server::ProducesTickets;

/// How long tickets are sealed with one key, in seconds.
const EPOCH: u64 = 12 * 60 * 60;

/// Bytes that tell one key from another.
const NAME: usize = 8;

/// Bytes of a secret of the process's own.
pub const SECRET: usize = 32;

/// The keys of a process, for all of its listeners.
pub struct Tickets {
    secrets: ArcSwap<Vec<Vec<u8>>>,
    keys: ArcSwap<Keys>,
}

/// The keys of an epoch and of the ones beside it.
struct Keys {
    epoch: u64,
    secrets: Arc<Vec<Vec<u8>>>,
    /// The first seals, all open.
    keys: Vec<Key>,
}

struct Key {
    name: [u8; NAME],
    key: LessSafeKey,
}

impl Tickets {
    /// The first secret seals, all open. At least one.
    pub fn new(secrets: Vec<Vec<u8>>) -> Arc<Tickets> {
        let secrets = Arc::new(secrets);
        let keys = Keys::new(secrets.clone(), epoch());
        Arc::new(Tickets { secrets: ArcSwap::new(secrets), keys: ArcSwap::from_pointee(keys) })
    }

    /// A secret that nobody else has.
    ///
    /// # Errors
    /// The system gives no random bytes.
    pub fn random_secret() -> Result<Vec<u8>, String> {
        let mut secret = vec![0; SECRET];
        // The kernel's: aws-lc would set its own generator up for it, which takes a while and may never be needed.
        let mut filled = 0;
        while filled < SECRET {
            filled += getrandom(&mut secret[filled..], GetRandomFlags::empty())
                .map_err(|e| format!("the system gives no random bytes: {e}"))?;
        }
        Ok(secret)
    }

    /// Other secrets, from now on.
    pub fn set_secrets(&self, secrets: Vec<Vec<u8>>) {
        self.secrets.store(Arc::new(secrets));
    }

    /// The keys of this moment.
    fn keys(&self) -> arc_swap::Guard<Arc<Keys>> {
        let (keys, secrets, epoch) = (self.keys.load(), self.secrets.load(), epoch());
        if keys.epoch == epoch && Arc::ptr_eq(&keys.secrets, &secrets) {
            return keys;
        }
        self.keys.store(Arc::new(Keys::new(secrets.clone(), epoch)));
        self.keys.load()
    }

    fn seal(&self, plain: &[u8], context: &[u8]) -> Option<Vec<u8>> {
        let keys = self.keys();
        let Key { name, key } = keys.keys.first()?;
        let mut nonce = [0; NONCE_LEN];
        aws_lc_rs::rand::fill(&mut nonce).ok()?;
        let mut ticket = Vec::with_capacity(NAME + NONCE_LEN + plain.len() + AES_256_GCM.tag_len());
        ticket.extend_from_slice(name);
        ticket.extend_from_slice(&nonce);
        let mut sealed = plain.to_vec();
        let nonce = Nonce::assume_unique_for_key(nonce);
        key.seal_in_place_append_tag(nonce, Aad::from(context), &mut sealed).ok()?;
        ticket.extend_from_slice(&sealed);
        Some(ticket)
    }

    fn open(&self, ticket: &[u8], context: &[u8]) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_at_checked(NAME)?;
        let (nonce, sealed) = rest.split_at_checked(NONCE_LEN)?;
        let keys = self.keys();
        let Key { key, .. } = keys.keys.iter().find(|key| key.name == name)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut plain = sealed.to_vec();
        let length = key.open_in_place(nonce, Aad::from(context), &mut plain).ok()?.len();
        plain.truncate(length);
        Some(plain)
    }
}

impl Keys {
    fn new(secrets: Arc<Vec<Vec<u8>>>, epoch: u64) -> Keys {
        // Of the next epoch too: the clock of another edge may be ahead.
        let epochs = [epoch, epoch.saturating_sub(1), epoch.saturating_add(1)];
        let keys = epochs.iter().flat_map(|epoch| secrets.iter().filter_map(|secret| Key::new(secret, *epoch)));
        // Sealing is with the first secret's of this epoch, which comes first.
        Keys { epoch, keys: keys.collect(), secrets }
    }
}

impl Key {
    /// `None`: never, since the length is right.
    fn new(secret: &[u8], epoch: u64) -> Option<Key> {
        let secret = hmac::Key::new(HMAC_SHA256, secret);
        let derived = |what: &[u8]| {
            let mut context = hmac::Context::with_key(&secret);
            context.update(what);
            context.update(&epoch.to_be_bytes());
            context.sign()
        };
        let mut name = [0; NAME];
        name.copy_from_slice(derived(b"foreland ticket name").as_ref().get(..NAME)?);
        let key = UnboundKey::new(&AES_256_GCM, derived(b"foreland ticket key").as_ref()).ok()?;
        Some(Key { name, key: LessSafeKey::new(key) })
    }
}

/// Tickets of one listener.
pub(super) struct Sealer {
    tickets: Arc<Tickets>,
    context: [u8; 32],
}

impl Sealer {
    /// `context`: what a session may only be resumed with.
    pub fn new(tickets: Arc<Tickets>, context: &[u8]) -> Sealer {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, context).as_ref());
        Sealer { tickets, context: hash }
    }
}

impl ProducesTickets for Sealer {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        u32::try_from(EPOCH).unwrap_or(u32::MAX)
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.tickets.seal(plain, &self.context)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        self.tickets.open(ticket, &self.context)
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealer")
    }
}

fn epoch() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() / EPOCH
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets(bytes: &[u8]) -> Vec<Vec<u8>> {
        bytes.iter().map(|byte| vec![*byte; SECRET]).collect()
    }

    #[test]
    fn tickets_open_with_the_secret_that_sealed_them() {
        let one = Tickets::new(secrets(&[1]));
        let ticket = one.seal(b"session", b"ctx").unwrap();
        assert_eq!(one.open(&ticket, b"ctx").unwrap(), b"session");
        // Another process with the same secret, and one where it has become the second.
        assert_eq!(Tickets::new(secrets(&[1])).open(&ticket, b"ctx").unwrap(), b"session");
        assert_eq!(Tickets::new(secrets(&[2, 1])).open(&ticket, b"ctx").unwrap(), b"session");
        assert_eq!(Tickets::new(secrets(&[2])).open(&ticket, b"ctx"), None);
        assert_eq!(one.open(&ticket, b"other"), None);
    }

    #[test]
    fn a_reload_changes_the_secrets() {
        let tickets = Tickets::new(secrets(&[1]));
        let old = tickets.seal(b"session", b"").unwrap();
        tickets.set_secrets(secrets(&[2, 1]));
        assert_eq!(tickets.open(&old, b"").unwrap(), b"session");
        let new = tickets.seal(b"session", b"").unwrap();
        tickets.set_secrets(secrets(&[2]));
        assert_eq!(tickets.open(&old, b""), None);
        assert_eq!(tickets.open(&new, b"").unwrap(), b"session");
    }

    #[test]
    fn a_key_outlives_its_epoch_by_one() {
        let secrets = Arc::new(secrets(&[1]));
        let at = |epoch| Keys::new(secrets.clone(), epoch);
        let sealing = at(100).keys[0].name;
        let opens = |epoch: u64| at(epoch).keys.iter().any(|key| key.name == sealing);
        assert!(opens(99) && opens(100) && opens(101));
        assert!(!opens(102) && !opens(98));
        assert_ne!(at(101).keys[0].name, sealing);
    }

    #[test]
    fn damaged_tickets_do_not_open() {
        let tickets = Tickets::new(secrets(&[1]));
        let ticket = tickets.seal(b"session", b"").unwrap();
        for i in 0..ticket.len() {
            let mut damaged = ticket.clone();
            damaged[i] ^= 1;
            assert_eq!(tickets.open(&damaged, b""), None, "byte {i}");
            assert_eq!(tickets.open(&ticket[..i], b""), None, "cut at {i}");
        }
    }
}
