use super::*;
use crate::http_cache::Tags;
use crate::invalidate::journal::File;
use crate::invalidate::journal::testing::{Keep, Memory};
use crate::invalidate::{By, Selector, Verdict};

const KEY: &[u8] = b"\x01z\x01sh\x0bexample.comp\x01/";

fn host() -> Box<[Selector]> {
    [Selector::Host("example.com".into())].into()
}

/// A process that begins with these copies.
fn process(media: &[&Memory], shared: bool) -> Arc<Ledger> {
    let ledger = Arc::new(Ledger::new());
    let found = ledger.load(&media.iter().map(|medium| *medium as &dyn Medium).collect::<Vec<_>>());
    for (number, (medium, found)) in media.iter().zip(found).enumerate() {
        ledger.attach(Named(number, (*medium).clone()), found.ok(), shared).unwrap();
    }
    ledger
}

/// One of several.
struct Named(usize, Memory);

impl Medium for Named {
    fn name(&self) -> String {
        self.0.to_string()
    }

    fn open(&self) -> io::Result<Box<dyn File>> {
        self.1.open()
    }

    fn create(&self) -> io::Result<Box<dyn File>> {
        self.1.create()
    }

    fn publish(&self) -> io::Result<()> {
        self.1.publish()
    }

    fn discard(&self) -> io::Result<()> {
        self.1.discard()
    }

    fn sync_folder(&self) -> io::Result<()> {
        self.1.sync_folder()
    }
}

/// It ends.
fn end(ledger: &Ledger) {
    let journals: Vec<_> = ledger.copies.read().unwrap().iter().map(|copy| copy.journal.clone()).collect();
    journals.iter().for_each(|journal| journal.shut());
}

/// One that takes over from another.
fn successor(medium: &Memory, old: &Ledger) -> Arc<Ledger> {
    old.share(true).unwrap();
    let new = process(&[medium], true);
    new.share(true).unwrap();
    let _ = new.append(Box::default(), false, By::Api);
    new
}

fn verdict(ledger: &Ledger, since: u64) -> Verdict {
    ledger.verdict(KEY, &Tags::default(), since)
}

#[test]
fn what_the_process_before_purges_concerns_what_has_begun_in_this_one() {
    let medium = Memory::new();
    let old = process(&[&medium], false);
    let _ = old.append(host(), false, By::Api);
    let new = successor(&medium, &old);
    let began = new.head();
    let sequence = old.append(host(), false, By::Api).sequence;
    assert!(sequence > began, "{sequence} comes after {began}");
    assert!(new.head() >= sequence);
    assert_eq!(verdict(&new, began), Verdict::Dead);
    // And the other way round.
    let began = old.head();
    let sequence = new.append(host(), false, By::Api).sequence;
    assert!(sequence > began && old.head() >= sequence);
    assert_eq!(verdict(&old, began), Verdict::Dead);
    for ledger in [&old, &new] {
        let reserved = || ledger.copies.read().unwrap().iter().all(|copy| copy.journal.reserved() >= ledger.own_head());
        eventually("what begins now can be compared after a restart", reserved);
    }
    // And once they are over.
    let began = new.head();
    end(&old);
    end(&new);
    let later = process(&[&medium], false);
    assert_eq!((verdict(&later, sequence - 1), verdict(&later, began)), (Verdict::Dead, Verdict::Alive));
}

#[test]
fn whether_a_purge_lasts_is_asked_when_it_is_in_force() {
    let medium = Memory::new();
    let ledger = process(&[&medium], false);
    let began = ledger.head();
    for lasts in [false, true] {
        let asked = || {
            assert_eq!((ledger.own_head() > began, verdict(&ledger, began)), (true, Verdict::Dead));
            lasts
        };
        let _ = ledger.append_after(|| (), host(), By::Unsafe, asked);
        assert_eq!(ledger.lasting().1 > 0, lasts);
    }
}

/// Waits until it is so.
fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PROMPT, "{what}: not in time");
        std::thread::yield_now();
    }
}

/// Waits until it is durable in all copies.
fn durable(written: impl Future<Output = Result<(), String>>) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(written)
}

fn pass(ledger: &Ledger) {
    let _ = ledger.append_after(|| (), host(), By::Unsafe, || false);
}

#[test]
fn one_disk_more_makes_nothing_unusable_that_is_on_the_others() {
    for purged in [false, true] {
        let (first, second) = (Memory::new(), Memory::new());
        let ledger = process(&[&first], false);
        if purged {
            durable(ledger.append(host(), false, By::Api).written()).unwrap();
        }
        let began = ledger.head();
        pass(&ledger);
        end(&ledger);
        end(&process(&[&first, &second], false));
        let later = process(&[&first, &second], false);
        assert_eq!((later.forgotten(), verdict(&later, began)), (0, Verdict::Alive), "{purged}");
    }
}

#[test]
fn a_copy_that_begins_anew_makes_nothing_unusable_that_is_on_the_others() {
    let (first, second) = (Memory::new(), Memory::new());
    let ledger = process(&[&first, &second], false);
    durable(ledger.append(host(), false, By::Api).written()).unwrap();
    let began = ledger.head();
    pass(&ledger);
    second.empty();
    eventually("it has begun anew", || second.has("ledger") && !second.has("ledger.new"));
    end(&ledger);
    let later = process(&[&first, &second], false);
    assert_eq!((later.forgotten(), verdict(&later, began)), (0, Verdict::Alive));
}

#[test]
fn a_copy_that_lacks_what_another_has_does_not_speak_for_its_disk_alone() {
    let (first, second) = (Memory::new(), Memory::new());
    let ledger = process(&[&first, &second], false);
    durable(ledger.append(host(), false, By::Api).written()).unwrap();
    let (began, behind) = (ledger.head(), second.crash(Keep::All));
    let sequence = ledger.append(host(), false, By::Api).sequence;
    eventually("the other has it", || first.sequences().last() == Some(&sequence));
    let whole = first.crash(Keep::All);
    let later = process(&[&whole, &behind], false);
    assert_eq!(verdict(&later, began), Verdict::Dead);
    eventually("it says so", || behind.read().unwrap().0.compacted >= sequence);
    end(&later);
    // With the other one gone.
    let alone = process(&[&behind], false);
    assert_eq!(verdict(&alone, began), Verdict::Dead);
    end(&alone);
    // And with it, nothing is in doubt.
    let both = process(&[&whole, &behind], false);
    assert_eq!((both.forgotten(), verdict(&both, sequence)), (0, Verdict::Alive));
}
