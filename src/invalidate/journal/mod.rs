//! The file in which the ledger's entries outlast the process. Each disk has one, with all of them.
//!
//! [`read`] says what there is, [`Journal`] goes on with it. What has been told to be durable is there when it is read
//! again, or the file is [`Unreadable::Corrupt`], and all that was stored before is to be taken for stale: nothing comes
//! back.
//!
//! # Format
//! All numbers are little-endian. The header, the two commit slots and the records begin at multiples of 4096.
//!
//! | At | Bytes | |
//! |---|---|---|
//! | 0 | 8 | `FORELEDG` |
//! | 8 | 4 | version: 1 |
//! | 12 | 4 | 0 |
//! | 16 | 8 | the ledger's id: the same in all its files |
//! | 24 | 8 | salt: a number of this file alone |
//! | 32 | 4 | CRC-32 (IEEE) of the bytes 0 to 31 |
//! | 4096 | 16 | commit slot |
//! | 8192 | 16 | commit slot |
//! | 12288 | | records without gaps, up to the end of the file |
//!
//! | Commit slot at | Bytes | |
//! |---|---|---|
//! | 0 | 8 | so many bytes of the file are durable |
//! | 8 | 4 | 0 |
//! | 12 | 4 | CRC-32 of the header's bytes 0 to 31 and the slot's 0 to 11 |
//!
//! The slots are written in turns, in place, after what they speak of has been synced, and become durable with the next
//! sync. The higher of those that are sound counts; that both are damaged does not come about by a write cut short.
//!
//! | Record at | Bytes | |
//! |---|---|---|
//! | 0 | 4 | how many bytes follow the checksum: 1 to 64 MiB |
//! | 4 | 4 | CRC-32 of the header's bytes 0 to 31, the record's 0 to 3, and those from 8 on |
//! | 8 | 1 | kind |
//! | 9 | | what it says |
//!
//! | Kind | | |
//! |---|---|---|
//! | 1 | base | three numbers of 8 bytes: `compacted`, `reserved`, `swept`. The first record, and no other |
//! | 2 | entry | of a higher sequence than all before it |
//! | 3 | late entry | of a sequence not higher than the highest before it: one that could not be written in time, while another process wrote |
//! | 4 | reserve | 8 bytes: sequences up to this may have been given out without an entry |
//! | 5 | swept | 8 bytes: every object on this disk has been checked against all entries up to this sequence |
//!
//! `compacted` says that entries up to this sequence may be missing. Where a field is given more than once, the highest
//! counts.
//!
//! | Entry at | Bytes | |
//! |---|---|---|
//! | 0 | 8 | sequence, not 0 |
//! | 8 | 8 | when, in milliseconds since 1970, signed |
//! | 16 | 1 | 1 when soft, else 0 |
//! | 17 | 1 | where from: 1 the admin API, 2 the method PURGE, 3 an unsafe request |
//! | 18 | 4 | how many selectors: at most 10,000. Without any, the entry is there for its sequence |
//! | 22 | | the selectors |
//!
//! A record that is cut short or has another checksum is the torn end of a write when it begins where the committed
//! length ends or later: it and what follows are cut off. Anything else that is not as it should be makes the file
//! corrupt.
//!
//! The file is replaced by writing `ledger.new` and renaming it.

mod ack;
mod format;
#[expect(clippy::module_inception, reason = "one of them")]
mod journal;
mod medium;
mod read;
mod recover;
mod replace;
mod writer;

pub use ack::{Ack, Unwritten};
pub use format::Base;
pub use journal::{Exclusive, Journal};
pub use medium::{File, Medium, Stat};
pub use read::{Summary, Unreadable, read};
pub use replace::random;
pub use writer::{Begin, Hooks, Start};

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
