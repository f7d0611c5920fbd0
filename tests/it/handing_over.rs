//! Ends and queues that go from process to process in messages.

use std::cell::Cell;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize, Serializer};
use shmq::{ByteQueue, Connection, GetError, PutError, Queue, QueueOptions, Receiver, Sender};

use crate::harness::{
    Random, Record, Role, Stage, adopt_orphans, adopted, assert_prompt, crash, exists, fork, fork_orphan,
    hear, ms, nap, play, say, timed, until,
};
use crate::pipes::name_of;

pub(crate) const ROLES: &[(&str, Role)] = &[
    ("handing_over::anything", anything),
    ("handing_over::on_its_way", on_its_way),
    ("handing_over::both_on_their_way", both_on_their_way),
    ("handing_over::failing_puts", failing_puts),
    ("handing_over::nested_puts", nested_puts),
    ("handing_over::part_of_many", part_of_many),
    ("handing_over::called_back", called_back),
    ("handing_over::twice", twice),
    ("handing_over::final_end", final_end),
    ("handing_over::places", places),
    ("handing_over::serves", serves),
    ("handing_over::asks", asks),
    ("handing_over::packs", packs),
    ("handing_over::exits", exits),
    ("handing_over::takes_both", takes_both),
    ("handing_over::sends_32", sends_32),
    ("handing_over::packs_and_forks", packs_and_forks),
    ("handing_over::amid_it", amid_it),
];

fn encode(value: &impl Serialize) -> Vec<u8> {
    postcard::to_stdvec(value).unwrap()
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, postcard::Error> {
    postcard::from_bytes(bytes)
}

/// That nobody is at the far end any more, and that this is found at once.
#[track_caller]
fn assert_ended<T: DeserializeOwned>(receiver: &Receiver<T>) {
    let got = receiver.recv_nowait().map(drop);
    assert!(matches!(got, Err(GetError::Closed)), "{got:?} instead of the end of file");
}

/// The same in the test process.
fn ends<T: DeserializeOwned>(receiver: &Receiver<T>) {
    until("the end of file", || matches!(receiver.recv_nowait(), Err(GetError::Closed)));
}

#[track_caller]
fn assert_open<T: DeserializeOwned>(receiver: &Receiver<T>) {
    let got = receiver.recv_nowait().map(drop);
    assert!(matches!(got, Err(GetError::Empty)), "{got:?}: nothing was to be there yet");
}

// What it is good for

#[derive(Serialize, Deserialize)]
struct Request {
    number: u64,
    reply: Sender<u64>,
}

#[test]
fn a_queue_of_reply_senders_works() {
    let stage = Stage::new();
    let name = stage.name();
    let requests = Queue::<Request>::create(&name, 4).unwrap();
    let servers: Vec<_> = (0..2).map(|_| stage.child("handing_over::serves", &[&name])).collect();
    let clients: Vec<_> =
        (0..2).map(|client| stage.child("handing_over::asks", &[&name, &client.to_string()])).collect();
    for client in clients {
        client.finish();
    }
    requests.close();
    let served: u64 = servers.into_iter().map(|server| server.finish()[0].parse::<u64>().unwrap()).sum();
    assert_eq!(served, 2 * REQUESTS);
}

const REQUESTS: u64 = 60;

fn serves(arguments: &[String]) {
    let requests = Queue::<Request>::open(&arguments[0]).unwrap();
    let mut count = 0;
    for Request { number, reply } in &requests {
        reply.send(&(number * number)).unwrap();
        count += 1;
    }
    say(&count.to_string());
}

fn asks(arguments: &[String]) {
    let requests = Queue::<Request>::open(&arguments[0]).unwrap();
    let first = arguments[1].parse::<u64>().unwrap() * REQUESTS;
    for number in first..first + REQUESTS {
        let (receiver, reply) = shmq::simplex().unwrap();
        requests.put(&Request { number, reply }).unwrap();
        assert_eq!(receiver.recv().unwrap(), number * number);
        // The server lets go of its end after the answer.
        let (end, took) = timed(|| receiver.recv());
        assert!(matches!(end, Err(GetError::Closed)));
        assert_prompt(took);
    }
}

#[derive(Serialize, Deserialize)]
enum Thing {
    Items(Queue<u32>),
    Bytes(ByteQueue),
    End(Connection<u8, String>),
    Receivers(Vec<Receiver<u8>>),
    Nothing(Option<Sender<u8>>),
}

#[test]
fn whatever_has_a_handle_goes_through_a_queue_and_through_a_pipe() {
    play("handing_over::anything");
}

fn anything(_: &[String]) {
    let things = Queue::<Thing>::new(8).unwrap();
    let (there, here) = shmq::simplex::<Thing>().unwrap();
    let send = |thing: Thing| {
        here.send(&thing).unwrap();
        drop(thing);
        things.put(&there.recv().unwrap()).unwrap();
        things.get().unwrap()
    };
    let items = Queue::new(4).unwrap();
    let Thing::Items(again) = send(Thing::Items(items.clone())) else { panic!() };
    again.put(&7).unwrap();
    assert_eq!((items.get().unwrap(), items.name()), (7, again.name()));
    let bytes = ByteQueue::new(4).unwrap();
    let Thing::Bytes(again) = send(Thing::Bytes(bytes.clone())) else { panic!() };
    bytes.put(b"x").unwrap();
    assert_eq!(again.get().unwrap(), b"x");
    let (near, far) = shmq::pipe::<String, u8>().unwrap();
    let Thing::End(far) = send(Thing::End(far)) else { panic!() };
    near.send(&"hello".to_owned()).unwrap();
    far.send(&5).unwrap();
    assert_eq!((far.recv().unwrap().as_str(), near.recv().unwrap()), ("hello", 5));
    drop(far);
    assert!(matches!(near.recv(), Err(GetError::Closed)));
    let (receivers, senders): (Vec<_>, Vec<_>) = (0..3).map(|_| shmq::simplex().unwrap()).unzip();
    let Thing::Receivers(receivers) = send(Thing::Receivers(receivers)) else { panic!() };
    for (receiver, sender) in receivers.into_iter().zip(&senders) {
        sender.send(&1).unwrap();
        assert_eq!(receiver.recv().unwrap(), 1);
        drop(receiver);
        assert!(matches!(sender.send(&1), Err(PutError::Closed)));
    }
    let Thing::Nothing(None) = send(Thing::Nothing(None)) else { panic!() };
}

// On its way

#[test]
fn an_end_on_its_way_is_no_end_of_file() {
    play("handing_over::on_its_way");
}

fn on_its_way(_: &[String]) {
    let queue = Queue::<Sender<u8>>::new(2).unwrap();
    let (receiver, sender) = shmq::simplex::<u8>().unwrap();
    sender.send(&1).unwrap();
    queue.put(&sender).unwrap();
    drop(sender);
    assert_eq!(receiver.recv().unwrap(), 1);
    assert_open(&receiver);
    assert!(matches!(receiver.recv_timeout(ms(70)), Err(GetError::Empty)));
    assert!(!receiver.poll(ms(1)).unwrap());
    assert!(shmq::wait(&[&receiver], Some(ms(1))).unwrap().is_empty());
    let arrived = queue.get().unwrap();
    assert_open(&receiver);
    arrived.send(&2).unwrap();
    drop(arrived);
    assert_eq!(receiver.recv().unwrap(), 2);
    assert_ended(&receiver);
    // The same for who receives.
    let queue = Queue::<Receiver<u8>>::new(2).unwrap();
    let (receiver, sender) = shmq::simplex::<u8>().unwrap();
    queue.put(&receiver).unwrap();
    drop(receiver);
    sender.send(&1).unwrap();
    sender.send(&2).unwrap();
    assert!(matches!(sender.send_nowait(&3), Err(PutError::Full)));
    let arrived = queue.get().unwrap();
    assert_eq!(arrived.recv().unwrap(), 1);
    drop(arrived);
    assert!(matches!(sender.send_nowait(&3), Err(PutError::Closed)));
}

#[test]
fn both_ends_may_be_on_their_way_with_messages_in_the_pipe() {
    play("handing_over::both_on_their_way");
}

fn both_on_their_way(_: &[String]) {
    let (receiver, sender) = shmq::simplex::<u8>().unwrap();
    let name = name_of(&sender);
    sender.send(&1).unwrap();
    let bytes = (encode(&receiver), encode(&sender));
    drop((receiver, sender));
    assert!(exists(&name));
    let sender: Sender<u8> = decode(&bytes.1).unwrap();
    sender.send(&2).unwrap();
    drop(sender);
    let receiver: Receiver<u8> = decode(&bytes.0).unwrap();
    assert_eq!([receiver.recv().unwrap(), receiver.recv().unwrap()], [1, 2]);
    assert_ended(&receiver);
    drop(receiver);
    assert!(!exists(&name));
}

#[test]
fn the_death_of_who_sent_it_ends_an_end_that_has_not_arrived() {
    let stage = Stage::new();
    let name = stage.name();
    let queue = Queue::<Sender<u8>>::create(&name, 4).unwrap();
    for goes in ["is killed", "crashes", "exits"] {
        let (receiver, sender) = shmq::simplex::<u8>().unwrap();
        sender.send(&7).unwrap();
        queue.put(&sender).unwrap();
        drop(sender);
        let mut child = stage.child("handing_over::packs", &[&name, goes]);
        child.heard("packed");
        assert_eq!(receiver.recv().unwrap(), 7);
        assert_open(&receiver);
        if goes == "is killed" {
            child.kill();
        } else {
            child.tell("go");
            child.finish();
        }
        ends(&receiver);
        let late = queue.get();
        assert!(matches!(late, Err(GetError::Decode { .. })), "{late:?}");
        assert_ended(&receiver);
    }
}

/// Passes an end on and has nothing else any more.
fn packs(arguments: &[String]) {
    let ends = Queue::<Sender<u8>>::open(&arguments[0]).unwrap();
    let end = ends.get().unwrap();
    ends.put(&end).unwrap();
    drop(end);
    say("packed");
    hear();
    if arguments[1] == "crashes" {
        crash();
    }
}

#[test]
fn a_process_that_exits_leaves_nothing_of_what_it_sent_and_dropped() {
    let stage = Stage::new();
    let name = stage.name();
    let mut child = stage.child("handing_over::exits", &[&name]);
    child.heard("dropped");
    assert!(exists(&name));
    child.tell("go");
    child.finish();
    assert!(!exists(&name));
}

fn exits(arguments: &[String]) {
    let here = Connection::<u8, u8>::create(&arguments[0]).unwrap();
    let ends = Queue::<Connection<u8, u8>>::new(4).unwrap();
    ends.put(&here).unwrap();
    _ = encode(&here);
    drop((here, ends));
    say("dropped");
    hear();
}

/// The parent sends both ends to another process and goes on living.
#[test]
fn who_handed_both_ends_on_does_not_keep_their_memory() {
    let stage = Stage::new();
    let name = stage.name();
    let ends = Queue::<(Receiver<u8>, Sender<u8>)>::create(&name, 4).unwrap();
    let (receiver, sender) = shmq::simplex::<u8>().unwrap();
    let pipe = name_of(&sender);
    ends.put(&(receiver, sender)).unwrap();
    let child = stage.child("handing_over::takes_both", &[&name]);
    child.finish();
    drop(ends);
    until("it is gone", || !exists(&pipe));
}

fn takes_both(arguments: &[String]) {
    let ends = Queue::<(Receiver<u8>, Sender<u8>)>::open(&arguments[0]).unwrap();
    let (receiver, sender) = ends.get().unwrap();
    sender.send(&1).unwrap();
    drop(sender);
    assert_eq!(receiver.recv().unwrap(), 1);
    assert_ended(&receiver);
}

// A put that fails

/// An item with an end in it, and what comes after the end.
struct Item {
    end: Sender<u8>,
    then: Then,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Then {
    Fine,
    Fail,
    Panic,
    Long,
}

impl Serialize for Item {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        struct Rest(Then);

        impl Serialize for Rest {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                match self.0 {
                    Then::Fine => serializer.serialize_unit(),
                    Then::Fail => Err(serde::ser::Error::custom("not this one")),
                    Then::Panic => panic!("on purpose"),
                    Then::Long => vec![0_u8; 10_000].serialize(serializer),
                }
            }
        }

        (&self.end, Rest(self.then)).serialize(serializer)
    }
}

#[test]
fn an_end_ends_with_the_put_that_was_to_carry_it() {
    play("handing_over::failing_puts");
}

fn failing_puts(_: &[String]) {
    let queue = Queue::<Item>::new(1).unwrap();
    let put = |then: Then, how: &dyn Fn(&Item) -> Result<(), PutError>| {
        let (receiver, end) = shmq::simplex::<u8>().unwrap();
        let item = Item { end, then };
        let put = catch_unwind(AssertUnwindSafe(|| how(&item)));
        assert_open(&receiver);
        drop(item);
        (put, receiver)
    };
    let (failed, receiver) = put(Then::Fail, &|item| queue.put(item));
    assert!(matches!(failed, Ok(Err(PutError::Encode(_)))));
    assert_ended(&receiver);
    let (failed, receiver) = put(Then::Long, &|item| queue.put(item));
    assert!(matches!(failed, Ok(Err(PutError::TooLong { .. }))));
    assert_ended(&receiver);
    let (failed, receiver) = put(Then::Panic, &|item| queue.put(item));
    assert!(failed.is_err());
    assert_ended(&receiver);
    let (fine, under_way) = put(Then::Fine, &|item| queue.put(item));
    assert!(matches!(fine, Ok(Ok(()))));
    assert_open(&under_way);
    for how in [
        &|item: &Item| queue.put_nowait(item),
        &|item: &Item| queue.put_timeout(item, ms(5)),
        &|item: &Item| queue.producer().unwrap().put_timeout(item, ms(5)),
    ] as [&dyn Fn(&Item) -> Result<(), PutError>; 3]
    {
        let (failed, receiver) = put(Then::Fine, how);
        assert!(matches!(failed, Ok(Err(PutError::Full))));
        assert_ended(&receiver);
    }
    queue.close();
    let (failed, receiver) = put(Then::Fine, &|item| queue.put(item));
    assert!(matches!(failed, Ok(Err(PutError::Closed))));
    assert_ended(&receiver);
    assert_open(&under_way);
    let arrived: (Sender<u8>, ()) = decode(&queue.bytes().get().unwrap()).unwrap();
    drop(arrived);
    assert_ended(&under_way);
}

/// One put inside of the encoding of another.
#[test]
fn what_a_put_inside_of_an_encoding_sends_is_not_the_outer_ones() {
    play("handing_over::nested_puts");
}

fn nested_puts(_: &[String]) {
    struct Nested<'a> {
        outer: Sender<u8>,
        inner: Cell<Option<Sender<u8>>>,
        queue: &'a Queue<Sender<u8>>,
    }

    impl Serialize for Nested<'_> {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let first = encode(&self.outer);
            self.queue.put(&self.inner.take().unwrap()).unwrap();
            _ = first.serialize(serializer);
            Err(serde::ser::Error::custom("not this one"))
        }
    }

    let outer_queue = Queue::<Nested<'_>>::new(1).unwrap();
    let queue = Queue::<Sender<u8>>::new(1).unwrap();
    let (of_outer, outer) = shmq::simplex::<u8>().unwrap();
    let (of_inner, inner) = shmq::simplex::<u8>().unwrap();
    let item = Nested { outer, inner: Cell::new(Some(inner)), queue: &queue };
    assert!(matches!(outer_queue.put(&item), Err(PutError::Encode(_))));
    drop(item);
    assert_ended(&of_outer);
    assert_open(&of_inner);
    drop(queue.get().unwrap());
    assert_ended(&of_inner);
}

#[test]
fn of_many_only_those_that_went_in_are_under_way() {
    play("handing_over::part_of_many");
}

fn part_of_many(_: &[String]) {
    let queue = Queue::<(u8, Option<Sender<u8>>)>::new(3).unwrap();
    let (receivers, senders): (Vec<_>, Vec<_>) = (0..4).map(|_| shmq::simplex::<u8>().unwrap()).unzip();
    let mut items: Vec<_> = (1..).zip(senders.into_iter().map(Some)).collect();
    // One without an end among them.
    items.insert(1, (0, None));
    let error = queue.put_many_timeout(&items, ms(10)).unwrap_err();
    assert_eq!(error.put, 3);
    assert!(matches!(error.error, PutError::Full));
    drop(items);
    // In are: an end, none, an end.
    assert_open(&receivers[0]);
    assert_open(&receivers[1]);
    assert_ended(&receivers[2]);
    assert_ended(&receivers[3]);
    let mut arrived = queue.get_many(10).unwrap();
    assert_eq!(arrived.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [1, 0, 2]);
    let (_, sender) = arrived.pop().unwrap();
    sender.unwrap().send(&9).unwrap();
    assert_eq!(receivers[1].recv().unwrap(), 9);
    assert_ended(&receivers[1]);
    assert_open(&receivers[0]);
    drop(arrived);
    assert_ended(&receivers[0]);
    // If one cannot be encoded, nothing goes in.
    let queue = Queue::<Item>::new(8).unwrap();
    let (receivers, senders): (Vec<_>, Vec<_>) = (0..2).map(|_| shmq::simplex::<u8>().unwrap()).unzip();
    let items: Vec<_> = senders.into_iter().zip([Then::Fine, Then::Fail]).collect();
    let items: Vec<_> = items.into_iter().map(|(end, then)| Item { end, then }).collect();
    assert_eq!(queue.put_many(&items).unwrap_err().put, 0);
    drop(items);
    receivers.iter().for_each(assert_ended);
}

#[test]
fn an_end_whose_serialisation_fails_outside_of_a_put_is_called_back() {
    play("handing_over::called_back");
}

fn called_back(_: &[String]) {
    let mut short = [0_u8; 20];
    let (receiver, sender) = shmq::simplex::<u8>().unwrap();
    assert!(postcard::to_slice(&sender, &mut short).is_err());
    drop(sender);
    assert_ended(&receiver);
    // Of a connection the second half may be what fails.
    let (here, there) = shmq::pipe::<u8, u8>().unwrap();
    let whole = encode(&there);
    let mut buffer = whole.clone();
    let mut length = whole.len();
    while length > 0 {
        length -= 7.min(length);
        assert!(postcard::to_slice(&there, &mut buffer[..length]).is_err());
    }
    // That one was serialised whole, and arrives.
    drop((there, decode::<Connection<u8, u8>>(&whole).unwrap()));
    assert!(matches!(here.recv_nowait(), Err(GetError::Closed)));
    assert!(matches!(here.send_nowait(&1), Err(PutError::Closed)));
}

// Bytes that were kept

#[test]
fn a_duplicate_that_comes_twice_attaches_while_the_end_is_open() {
    play("handing_over::twice");
}

fn twice(_: &[String]) {
    let (receiver, sender) = shmq::simplex::<u8>().unwrap();
    let bytes = encode(&sender);
    let first: Sender<u8> = decode(&bytes).unwrap();
    let second: Sender<u8> = decode(&bytes).unwrap();
    drop((sender, first));
    assert_open(&receiver);
    second.send(&1).unwrap();
    let third: Sender<u8> = decode(&bytes).unwrap();
    drop(second);
    assert_eq!(receiver.recv().unwrap(), 1);
    assert_open(&receiver);
    drop(third);
    // Not found by anybody yet, and over all the same.
    assert!(decode::<Sender<u8>>(&bytes).is_err());
    assert_ended(&receiver);
    assert!(decode::<Sender<u8>>(&bytes).is_err());
    // Nor does a receiver come from what was a sender's.
    let (receiver, sender) = shmq::simplex::<u8>().unwrap();
    let bytes = encode(&sender);
    drop(receiver);
    assert!(matches!(sender.send(&1), Err(PutError::Closed)));
    assert!(decode::<Receiver<u8>>(&bytes).is_err());
}

#[test]
fn the_end_of_file_is_final() {
    play("handing_over::final_end");
}

fn final_end(_: &[String]) {
    let (here, there) = shmq::pipe::<u8, u8>().unwrap();
    let kept = encode(&there);
    let other = encode(&there);
    drop(there);
    drop(decode::<Connection<u8, u8>>(&kept).unwrap());
    assert!(matches!(here.recv_nowait(), Err(GetError::Empty)), "the other one is under way");
    drop(decode::<Connection<u8, u8>>(&other).unwrap());
    assert!(matches!(here.recv(), Err(GetError::Closed)));
    for bytes in [&kept, &other] {
        assert!(decode::<Connection<u8, u8>>(bytes).is_err());
    }
    assert!(matches!(here.recv(), Err(GetError::Closed)));
    assert!(matches!(here.send(&1), Err(PutError::Closed)));
}

#[test]
fn a_name_that_was_given_to_another_pipe_does_not_do() {
    let stage = Stage::new();
    let name = stage.name();
    let here = Connection::<u8, u8>::create(&name).unwrap();
    let bytes = encode(&here);
    shmq::remove(&name).unwrap();
    let other = Connection::<u8, u8>::create(&name).unwrap();
    let refused = decode::<Connection<u8, u8>>(&bytes);
    assert!(refused.is_err());
    drop((here, other));
    let queue = Queue::<u8>::create(&name, 1).unwrap();
    let bytes = encode(&queue);
    drop(queue);
    assert!(decode::<Queue<u8>>(&bytes).is_err(), "there is none");
    let _queue = Queue::<u8>::create(&name, 1).unwrap();
    assert!(decode::<Queue<u8>>(&bytes).is_err(), "there is another one");
    assert!(decode::<ByteQueue>(&bytes).is_err());
    assert!(decode::<Sender<u8>>(b"nonsense").is_err());
}

// Places

fn all<T: DeserializeOwned>(queue: &Queue<T>) -> Vec<T> {
    std::iter::from_fn(|| queue.get_nowait().ok()).collect()
}

#[test]
fn as_many_as_32_are_under_way_at_once_and_then_there_is_room_again() {
    play("handing_over::places");
}

fn places(_: &[String]) {
    let queue = QueueOptions::new().capacity(100).anonymous::<Sender<u64>>().unwrap();
    let (receiver, sender) = shmq::simplex::<u64>().unwrap();
    for _ in 0..3 {
        for _ in 0..32 {
            queue.put(&sender).unwrap();
        }
        match queue.put(&sender) {
            Err(PutError::Encode(error)) => assert!(error.to_string().contains("32 ends"), "{error}"),
            other => panic!("{other:?}"),
        }
        assert_eq!(queue.qsize(), 32);
        // Another pipe has places of its own.
        let (_receiver, another) = shmq::simplex::<u64>().unwrap();
        drop(encode(&another));
        drop(queue.get().unwrap());
        queue.put(&sender).unwrap();
        let arrived = all(&queue);
        assert_eq!(arrived.len(), 32);
        for (number, end) in (0..).zip(&arrived) {
            end.send(&number).unwrap();
            assert_eq!(receiver.recv().unwrap(), number);
        }
    }
    drop(sender);
    assert_ended(&receiver);
}

/// What one process has sent, and has arrived, does not stand in the way of what another one sends.
#[test]
fn a_place_is_free_when_its_end_has_arrived_whoever_sent_it() {
    let stage = Stage::new();
    let name = stage.name();
    let queue = QueueOptions::new().capacity(100).create::<Sender<u64>>(&name).unwrap();
    let (receiver, sender) = shmq::simplex::<u64>().unwrap();
    queue.put(&sender).unwrap();
    let mut child = stage.child("handing_over::sends_32", &[&name]);
    child.heard("sent");
    // The child does nothing from here on, and lives.
    assert!(matches!(queue.put(&sender), Err(PutError::Encode(_))));
    let arrived = all(&queue);
    assert_eq!(arrived.len(), 32);
    for _ in 0..32 {
        queue.put(&sender).unwrap();
    }
    assert!(matches!(queue.put(&sender), Err(PutError::Encode(_))));
    drop((sender, arrived));
    assert_open(&receiver);
    child.kill();
    let last = all(&queue).pop().unwrap();
    last.send(&1).unwrap();
    assert_eq!(receiver.recv().unwrap(), 1);
    drop(last);
    ends(&receiver);
}

fn sends_32(arguments: &[String]) {
    let queue = Queue::<Sender<u64>>::open(&arguments[0]).unwrap();
    let end = queue.get().unwrap();
    for _ in 0..32 {
        queue.put(&end).unwrap();
    }
    drop(end);
    say("sent");
    hear();
}

// Forks and deaths

/// What is under way belongs to the process that sent it, not to a child that has a copy of its memory.
#[test]
fn a_forked_child_does_not_keep_alive_what_its_parent_sent() {
    play("handing_over::packs_and_forks");
}

fn packs_and_forks(_: &[String]) {
    adopt_orphans();
    let ends = Mutex::new(Some(shmq::simplex::<u8>().unwrap()));
    let queue = Queue::<Sender<u8>>::new(2).unwrap();
    let record = Record::new();
    let parent = fork(|| {
        let (receiver, sender) = ends.lock().unwrap().take().unwrap();
        queue.put(&sender).unwrap();
        drop((receiver, sender));
        let child = fork_orphan(|| {
            record.set(1, 1);
            until("told to end", || record.get(2) == 1);
            0
        });
        record.set(0, child.unsigned_abs().into());
        nap(ms(60_000));
        1
    });
    let (receiver, sender) = ends.lock().unwrap().take().unwrap();
    drop(sender);
    until("there is a child", || record.get(0) != 0 && record.get(1) == 1);
    assert_open(&receiver);
    parent.kill();
    assert_ended(&receiver);
    assert!(matches!(queue.get(), Err(GetError::Decode { .. })));
    record.set(2, 1);
    assert_eq!(adopted(i32::try_from(record.get(0)).unwrap()).wait(), 0);
}

/// Processes pass one end around and are killed at it. Whatever they were in the middle of, the end is open while
/// one of them has it or has it under way, and closed when all are dead.
#[test]
fn an_end_passed_around_by_processes_that_are_killed_is_open_as_long_as_one_has_it() {
    play("handing_over::amid_it");
}

fn amid_it(arguments: &[String]) {
    const ROUNDS: u64 = 25;
    let mut random = Random::new();
    let mut worst = Duration::ZERO;
    for round in 0..ROUNDS {
        let queue = Queue::<Sender<u64>>::create(&format!("{}{round}", arguments[0]), 4).unwrap();
        let ends = Mutex::new(Some(shmq::simplex::<u64>().unwrap()));
        let passer = || {
            fork(|| {
                let (receiver, mut sender) = ends.lock().unwrap().take().unwrap();
                drop(receiver);
                loop {
                    _ = sender.send_nowait(&1);
                    if queue.put_timeout(&sender, ms(1)).is_ok()
                        && let Ok(next) = queue.get_timeout(ms(1))
                    {
                        drop(mem::replace(&mut sender, next));
                    }
                }
            })
        };
        let mut passers: Vec<_> = (0..3).map(|_| passer()).collect();
        let (receiver, sender) = ends.lock().unwrap().take().unwrap();
        drop(sender);
        while let Some(passer) = passers.pop() {
            let end = Instant::now() + Duration::from_micros(500 + random.below(2500));
            while Instant::now() < end {
                match receiver.recv_nowait() {
                    Ok(1) | Err(GetError::Empty) => {}
                    other => panic!("round {round}, with {} alive: {other:?}", passers.len() + 1),
                }
            }
            if passers.is_empty() {
                // Somebody sleeps at the other end when the last one dies.
                let (left, took) = thread::scope(|scope| {
                    let reader = scope.spawn(|| {
                        while receiver.recv().is_ok() {}
                        Instant::now()
                    });
                    passer.kill();
                    let killed = Instant::now();
                    let told = reader.join().unwrap();
                    (receiver.recv_nowait(), told.saturating_duration_since(killed))
                });
                assert!(matches!(left, Err(GetError::Closed)));
                assert_prompt(took);
                worst = worst.max(took);
            } else {
                passer.kill();
            }
        }
        // What is still in the queue is nobody's any more.
        while let Err(GetError::Decode { .. }) = queue.get_nowait() {}
        assert!(queue.empty());
    }
    say(&format!("told after {worst:?} at worst"));
}
