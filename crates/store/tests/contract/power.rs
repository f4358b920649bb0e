//! Loss of power at any moment: what was answered is there, and what was not is there completely
//! or not at all.
//!
//! Several workers change things of their own at random and note what was answered. The power goes
//! after a random number of changes to the disk; then the store is opened on what is left.

use std::collections::BTreeMap;
use std::io::Read;
use std::process::{Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use lacewing_store::{
    BlobAddress, Expect, Key, Message, MessageId, Offset, Revision, Store, embedded,
};

use crate::blobs::chunks;
use crate::disk::{Dice, Disk};
use crate::side::{account, clock, data_dir, key, large, mounted, prefix};

const WORKERS: usize = 6;
const STEPS: usize = 60;
/// More than one life takes on a busy machine.
const LIFE: Duration = Duration::from_secs(60);

/// What one worker knows.
#[derive(Debug, Default)]
struct Known {
    records: BTreeMap<Key, Bytes>,
    messages: BTreeMap<MessageId, Bytes>,
    entries: Vec<Bytes>,
    blobs: Vec<(BlobAddress, u64)>,
    revision: Revision,
    last_message: Option<MessageId>,
    token: u64,
    doubt: Option<Doubt>,
}

/// The step that was under way when the power went: it has happened, or it has not.
#[derive(Debug)]
enum Doubt {
    Record(Key, Option<Bytes>),
    Put(Bytes),
    Ack(MessageId),
    Append(Vec<Bytes>),
    Other,
}

struct Worker<'a> {
    store: &'a Store,
    number: usize,
    dice: Dice,
    known: Known,
}

impl Worker<'_> {
    async fn work(mut self) -> Known {
        for step in 0..STEPS {
            let outcome = match self.dice.below(10) {
                0..=2 => self.put_record(step).await,
                3 => self.delete_record().await,
                4 | 5 => self.put_message(step).await,
                6 => self.finish_message().await,
                7 => self.append(step).await,
                8 => self.put_blob(step).await,
                _ => self.lease().await,
            };
            if let Err(doubt) = outcome {
                self.known.doubt = Some(doubt);
                break;
            }
        }
        self.known
    }

    fn name(&self, kind: &str) -> Key {
        key(&[kind, &self.number.to_string()])
    }

    fn record(&mut self) -> Key {
        let at = self.dice.below(5).to_string();
        key(&["records", &self.number.to_string(), &at])
    }

    fn value(&mut self, step: usize) -> Bytes {
        match self.dice.below(8) {
            0 => large(step as u8),
            _ => vec![step as u8; 1 + self.dice.below(5_000)].into(),
        }
    }

    async fn put_record(&mut self, step: usize) -> Result<(), Doubt> {
        let (name, value) = (self.record(), self.value(step));
        let put = self.store.records.put(&name, value.clone(), Expect::Any).await;
        let revision = put.map_err(|_| Doubt::Record(name.clone(), Some(value.clone())))?;
        self.known.revision = revision;
        self.known.records.insert(name, value);
        Ok(())
    }

    async fn delete_record(&mut self) -> Result<(), Doubt> {
        let name = self.record();
        if self.known.records.contains_key(&name) {
            let deleted = self.store.records.delete(&name, Expect::Any).await;
            self.known.revision = deleted.map_err(|_| Doubt::Record(name.clone(), None))?;
            self.known.records.remove(&name);
        }
        Ok(())
    }

    async fn put_message(&mut self, step: usize) -> Result<(), Doubt> {
        let body = self.value(step);
        let group = (self.dice.below(2) == 0).then(|| "g".to_owned());
        let message = Message { body: body.clone(), group, ..Message::default() };
        let put = self.store.queue.put(&self.name("queue"), message).await;
        let id = put.map_err(|_| Doubt::Put(body.clone()))?;
        self.known.messages.insert(id, body);
        self.known.last_message = Some(id);
        Ok(())
    }

    async fn finish_message(&mut self) -> Result<(), Doubt> {
        let (name, hidden) = (self.name("queue"), Duration::from_secs(60));
        let taken = self.store.queue.take(&name, 1, Duration::ZERO, hidden).await;
        let Some(receipt) = taken.map_err(|_| Doubt::Other)?.pop() else { return Ok(()) };
        self.known.token = self.known.token.max(receipt.token);
        self.store.queue.ack(&receipt).await.map_err(|_| Doubt::Ack(receipt.id))?;
        self.known.messages.remove(&receipt.id);
        Ok(())
    }

    async fn append(&mut self, step: usize) -> Result<(), Doubt> {
        let count = 1 + self.dice.below(3);
        let entries: Vec<Bytes> = (0..count).map(|_| self.value(step)).collect();
        let appended = self.store.log.append(&self.name("log"), entries.clone(), None).await;
        let offset = appended.map_err(|_| Doubt::Append(entries.clone()))?;
        assert_eq!(offset.as_u64(), self.known.entries.len() as u64);
        self.known.entries.extend(entries);
        Ok(())
    }

    async fn put_blob(&mut self, step: usize) -> Result<(), Doubt> {
        let content = vec![self.value(step), Bytes::from(vec![self.number as u8; 20_000])];
        let stored = self.store.blobs.put(&account(), chunks(content)).await;
        let (digest, length) = stored.map_err(|_| Doubt::Other)?;
        self.known.blobs.push((BlobAddress { account: account(), digest }, length));
        Ok(())
    }

    async fn lease(&mut self) -> Result<(), Doubt> {
        let (name, ttl) = (self.name("lease"), Duration::from_secs(60));
        let lease = self.store.leases.acquire(&name, ttl).await.map_err(|_| Doubt::Other)?;
        let Some(lease) = lease else { return Ok(()) };
        self.known.token = self.known.token.max(lease.token);
        self.store.leases.release(&lease).await.map_err(|_| Doubt::Other)
    }
}

impl Known {
    async fn check(self, store: &Store, number: usize) {
        let number = number.to_string();
        self.check_records(store, &number).await;
        self.check_messages(store, &number).await;
        self.check_entries(store, &number).await;
        for (address, length) in &self.blobs {
            let content = store.blobs.get(address, 0..*length).await.expect("the blob is there");
            let stored = store.blobs.put(&account(), chunks(vec![content])).await;
            assert_eq!(stored.expect("stored"), (address.digest, *length), "the blob is whole");
        }
        assert!(store.records.revision().await.expect("read") >= self.revision);
        let name = key(&["lease-after", &number]);
        let lease = store.leases.acquire(&name, Duration::from_secs(1)).await.expect("asked");
        assert!(lease.expect("free").token > self.token);
        let put = store.queue.put(&key(&["after"]), Message::default()).await.expect("put");
        assert!(self.last_message.is_none_or(|last| last < put));
    }

    async fn check_records(&self, store: &Store, number: &str) {
        let found = store.records.list(&prefix(&["records", number]), None, 100).await;
        let found = found.expect("listed").into_iter().map(|record| (record.key, record.value));
        let found: BTreeMap<Key, Bytes> = found.collect();
        let mut after = self.records.clone();
        if let Some(Doubt::Record(name, value)) = &self.doubt {
            match value {
                Some(value) => after.insert(name.clone(), value.clone()),
                None => after.remove(name),
            };
        }
        assert!(found == self.records || found == after, "records of worker {number} differ");
    }

    async fn check_messages(&self, store: &Store, number: &str) {
        let found = store.queue.peek(&key(&["queue", number]), 1_000).await.expect("peeked");
        let mut found: BTreeMap<_, _> =
            found.into_iter().map(|message| (message.id, message.body)).collect();
        for (id, body) in &self.messages {
            match found.remove(id) {
                Some(left) => assert_eq!(left, body),
                None => assert!(matches!(self.doubt, Some(Doubt::Ack(doubt)) if doubt == *id)),
            }
        }
        for body in found.into_values() {
            assert!(matches!(&self.doubt, Some(Doubt::Put(doubt)) if *doubt == body));
        }
    }

    async fn check_entries(&self, store: &Store, number: &str) {
        let (name, mut found) = (key(&["log", number]), Vec::new());
        loop {
            let from = Offset::new(found.len() as u64);
            let page = store.log.read(&name, from, 1_000, Duration::ZERO).await.expect("read");
            if page.is_empty() {
                break;
            }
            found.extend(page.into_iter().map(|(_, _, entry)| entry));
        }
        let more = found.split_off(self.entries.len().min(found.len()));
        assert_eq!(found.len(), self.entries.len(), "entries of worker {number} are missing");
        assert!(found == self.entries, "entries of worker {number} differ");
        let doubt = matches!(&self.doubt, Some(Doubt::Append(doubt)) if *doubt == more);
        assert!(more.is_empty() || doubt, "worker {number} never appended the last entries");
    }
}

/// One life of a store: it works until the power goes, and is looked at when it is back. Answers
/// whether the power went while it worked, or `None` where this machine cannot mount the disk.
async fn live_and_lose_power(seed: u64) -> Option<bool> {
    let mut dice = Dice::new(seed);
    // The harsh loss of everything that was not synced, or a part of it left.
    let left = (!seed.is_multiple_of(3)).then_some(seed);
    let disk = mounted()?;
    let store = embedded::open(&data_dir(&disk), clock()).expect("opens");
    disk.cut_after(dice.below(700), left);
    let workers = (0..WORKERS).map(|number| {
        let dice = Dice::new(seed ^ ((number as u64 + 1) << 32));
        Worker { store: &store, number, dice, known: Known::default() }.work()
    });
    let known = join_all(workers).await;
    let interrupted = known.iter().any(|known| known.doubt.is_some());
    // Whatever closing writes, comes too late.
    disk.cut_after(0, left);
    store.close().await;
    disk.lose_power(left);
    let store = embedded::open(&data_dir(&disk), clock()).expect("opens again");
    for (number, known) in known.into_iter().enumerate() {
        known.check(&store, number).await;
    }
    store.close().await;
    Some(interrupted)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_was_answered_is_lost_with_the_power() {
    let lives = if std::env::var_os("LACEWING_SOAK").is_some() { 2_000 } else { 40 };
    let mut interrupted = 0;
    for seed in 0..lives {
        println!("seed {seed} of {lives}");
        let life = tokio::time::timeout(LIFE, live_and_lose_power(seed)).await;
        match life.expect("a life ends in time") {
            Some(was_interrupted) => interrupted += u32::from(was_interrupted),
            None => return,
        }
    }
    assert!(u64::from(interrupted) > lives / 2, "only {interrupted} of {lives} were cut short");
}

/// Another process that copies the mounts at that moment, as a sandbox does, held the disk up once.
#[test]
fn a_copy_of_the_mount_does_not_hold_up_the_disk() {
    let Some(disk) = mounted() else { return };
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", "echo copied; exec sleep 600"]);
    let mut other = command.stdout(Stdio::piped()).spawn().expect("unshare(1) is there");
    let copied = other.stdout.take().expect("it is piped").read_exact(&mut [0; 7]);
    disk.lose_power(None);
    drop(disk);
    other.kill().expect("it is our child");
    other.wait().expect("it was killed");
    if copied.is_err() {
        println!("skipped: mounts cannot be copied here");
    }
}

#[test]
fn the_disk_forgets_what_was_not_synced() {
    let disk = Disk::default();
    let make = |name: &str| {
        disk.change(|state| state.create(crate::disk::ROOT, name.as_ref(), false)).expect("made")
    };
    let (kept, unnamed) = (make("kept"), make("unnamed"));
    disk.write(kept, 0, b"synced").expect("written");
    disk.change(|state| state.sync(kept)).expect("synced");
    disk.change(|state| state.unlink(crate::disk::ROOT, "unnamed".as_ref())).expect("gone");
    disk.change(|state| state.sync(crate::disk::ROOT)).expect("synced");
    disk.write(kept, 0, b"SYNCED and more").expect("written");
    make("new");
    let left = disk.after_power_loss(None);
    let names = left.read(|state| Ok(state.directory(crate::disk::ROOT)?.names.clone()));
    assert_eq!(names.expect("a directory").into_keys().collect::<Vec<_>>(), ["kept"]);
    let content = left.read(|state| Ok(state.file(kept)?.content.clone()));
    assert_eq!(content.expect("a file"), b"synced");
    assert!(disk.write(unnamed, 0, b"x").is_err(), "the power is gone");
}
