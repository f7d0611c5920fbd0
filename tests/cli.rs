//! The command `shmq`, as a real process, as people use it and as they misuse it.

#![expect(unsafe_code, reason = "children that die with their test")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{self, Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use shmq::{ByteQueue, GetError, QueueOptions};

/// How long any one process may take. Far more than any needs: the machine may be busy.
const PATIENCE: Duration = Duration::from_mins(1);
const ROLE: &str = "SHMQ_CLI_ROLE";

// ---------------------------------------------------------------------------------------------------
// Names and processes

/// Names that nobody else uses. What bears them, here and in the directory for temporary files, is removed when this
/// goes.
struct Stage {
    prefix: String,
}

impl Stage {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        Self { prefix: format!("cli-{}-{}-", process::id(), COUNT.fetch_add(1, Ordering::Relaxed)) }
    }

    fn name(&self, end: &str) -> String {
        format!("{}{end}", self.prefix)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        _ = fs::remove_dir_all(env::temp_dir().join(self.name("bin")));
        for entry in fs::read_dir("/dev/shm").unwrap().flatten() {
            let name = entry.file_name().into_string().unwrap_or_default();
            if name.starts_with(&format!("shmq.{}", self.prefix)) {
                _ = fs::remove_file(entry.path()).or_else(|_| fs::remove_dir(entry.path()));
            }
        }
    }
}

fn object(name: &str) -> PathBuf {
    PathBuf::from(format!("/dev/shm/shmq.{name}"))
}

fn exists(name: &str) -> bool {
    object(name).exists()
}

/// A process that is killed and reaped when this goes, and dies when the thread of its test does.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

impl Running {
    fn start(mut command: Command) -> Self {
        let die_with_us = || {
            // SAFETY: no memory is passed.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
            Ok(())
        };
        // SAFETY: the closure makes one system call.
        unsafe { command.pre_exec(die_with_us) };
        Self(command.spawn().unwrap())
    }

    /// Waits for it to end; its exit code, or minus the signal.
    #[track_caller]
    fn code(&mut self) -> i32 {
        use std::os::unix::process::ExitStatusExt;
        let start = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status.code().unwrap_or_else(|| -status.signal().unwrap_or(0));
            }
            assert!(start.elapsed() < PATIENCE, "it does not end");
            nap(2);
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the tests have no futex to wait on")]
fn nap(milliseconds: u64) {
    thread::sleep(Duration::from_millis(milliseconds));
}

/// Looks again and again until it `happened`.
#[track_caller]
fn until(what: &str, mut happened: impl FnMut() -> bool) {
    let start = Instant::now();
    while !happened() {
        assert!(start.elapsed() < PATIENCE, "waited in vain: {what}");
        nap(2);
    }
}

fn shmq_binary() -> &'static str {
    env!("CARGO_BIN_EXE_shmq")
}

fn shmq(arguments: &[&str]) -> Command {
    let mut command = Command::new(shmq_binary());
    command.args(arguments);
    command
}

/// A pipeline, in which `shmq` is the command and `$Q` the name.
fn shell(script: &str, name: &str) -> Command {
    let mut command = Command::new("bash");
    command.args(["-c", &format!("shmq() {{ \"$SHMQ\" \"$@\"; }}; {script}")]);
    command.env("SHMQ", shmq_binary()).env("Q", name);
    command
}

/// This test binary again, to play a role.
fn role(role: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["child", "--exact", "--nocapture", "--test-threads=1"]);
    command.env(ROLE, format!("{role} {}", arguments.join(" ")));
    // Where nothing is wrong, the test runner's words are nobody's.
    command.stdout(Stdio::null());
    command
}

#[derive(Debug)]
struct Said {
    code: i32,
    out: Vec<u8>,
    err: String,
}

impl Said {
    fn out(&self) -> &str {
        str::from_utf8(&self.out).unwrap()
    }

    fn lines(&self) -> Vec<&str> {
        self.out().lines().collect()
    }

    #[track_caller]
    fn succeeds(self) -> Self {
        assert_eq!(self.code, 0, "{self:?}");
        self
    }

    /// It fails with this code, and names what helps, on standard error.
    #[track_caller]
    fn fails(self, code: i32, words: &[&str]) -> Self {
        assert_eq!(self.code, code, "{self:?}");
        for word in words {
            assert!(self.err.contains(word), "{word:?} is not in {:?}", self.err);
        }
        assert!(!self.err.contains("panicked"), "{}", self.err);
        self
    }
}

/// Runs to the end.
#[track_caller]
fn run(command: Command, input: &[u8]) -> Said {
    let mut command = command;
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = Running::start(command);
    let mut stdin = running.0.stdin.take().unwrap();
    let (mut stdout, mut stderr) = (running.0.stdout.take().unwrap(), running.0.stderr.take().unwrap());
    let input = input.to_vec();
    let writer = thread::spawn(move || _ = stdin.write_all(&input));
    let out = thread::spawn(move || {
        let mut all = Vec::new();
        stdout.read_to_end(&mut all).map(|_| all)
    });
    let err = thread::spawn(move || {
        let mut all = String::new();
        stderr.read_to_string(&mut all).map(|_| all)
    });
    let code = running.code();
    writer.join().unwrap();
    Said { code, out: out.join().unwrap().unwrap(), err: err.join().unwrap().unwrap() }
}

#[track_caller]
fn ok(arguments: &[&str]) -> Said {
    run(shmq(arguments), b"").succeeds()
}

#[track_caller]
fn create(name: &str, capacity: &str) {
    ok(&["create", name, "--capacity", capacity, "--max-message", "64"]);
}

/// A stage with a queue on it.
#[track_caller]
fn with_queue(capacity: &str) -> (Stage, String) {
    let stage = Stage::new();
    let name = stage.name("q");
    create(&name, capacity);
    (stage, name)
}

#[track_caller]
fn put(name: &str, input: &[u8]) {
    run(shmq(&["put", name]), input).succeeds();
}

/// What is in the queue, read by the library.
fn left(name: &str) -> Vec<String> {
    let messages = shmq::peek(name, usize::MAX).unwrap();
    messages.into_iter().map(|message| String::from_utf8(message).unwrap()).collect()
}

/// What `stat --json` says.
#[track_caller]
fn stat(name: &str) -> Value {
    serde_json::from_slice(&ok(&["stat", name, "--json"]).out).unwrap()
}

/// The line of `ls` about this segment, by columns.
#[track_caller]
fn listed(name: &str) -> Vec<String> {
    let said = ok(&["ls"]);
    let line = said.lines().into_iter().find(|line| line.starts_with(&format!("{name} ")));
    line.unwrap_or_else(|| panic!("no {name} in {said:?}"))
        .split("  ")
        .filter(|cell| !cell.is_empty())
        .map(|cell| cell.trim().to_owned())
        .collect()
}

/// A process that made a queue of this name, put messages and crashed.
#[track_caller]
fn crash(name: &str, messages: usize) {
    let mut running = Running::start(role("crash", &[name, &messages.to_string()]));
    assert_eq!(running.code(), 7);
}

fn strings(range: impl Iterator<Item = u32>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

/// Not a test: what the child processes do.
#[test]
fn child() {
    let Ok(order) = env::var(ROLE) else { return };
    let words: Vec<_> = order.split_whitespace().collect();
    match words[..] {
        ["crash", name, messages] => {
            let queue = ByteQueue::create(name, 100).unwrap();
            for number in 1..=messages.parse::<u32>().unwrap() {
                queue.put(number.to_string().as_bytes()).unwrap();
            }
            process::exit(7);
        }
        ["hold", name] => {
            let queue = ByteQueue::create(name, 100).unwrap();
            queue.put(b"held").unwrap();
            // Until the test closes the pipe; then it leaves in good order.
            _ = std::io::stdin().read(&mut [0]);
        }
        ["produce", name, messages] => {
            let queue = ByteQueue::open(name).unwrap();
            let mut message = Vec::new();
            for number in 0..messages.parse::<u64>().unwrap() {
                self_describing(number, &mut message);
                queue.put(&message).unwrap();
            }
        }
        ["consume", name, messages] => {
            let queue = ByteQueue::open(name).unwrap();
            for number in 0..messages.parse::<u64>().unwrap() {
                let message = queue.get().unwrap();
                assert_eq!(number_of(&message), number);
            }
        }
        ["collect"] => collect(),
        _ => panic!("no such role: {order}"),
    }
}

/// The message of this number: of varying length, and every word of it depends on the number.
fn self_describing(number: u64, message: &mut Vec<u8>) {
    message.clear();
    for word in 0..=number % 37 {
        message.extend_from_slice(&(number ^ (word << 56)).to_le_bytes());
    }
}

/// The number of a message that is whole; panics at a torn one.
#[track_caller]
fn number_of(message: &[u8]) -> u64 {
    let number = u64::from_le_bytes(message[..8].try_into().unwrap());
    let mut whole = Vec::new();
    self_describing(number, &mut whole);
    assert!(message == whole, "a torn message: {message:?}");
    number
}

// ---------------------------------------------------------------------------------------------------
// Putting and getting

#[test]
fn nine_lines_go_in_and_come_out() {
    let (_stage, name) = with_queue("20");
    run(shell("seq 9 | shmq put $Q && shmq get $Q --count 9 && shmq peek $Q", &name), b"").succeeds();
    put(&name, b"a\n\n b \nlast");
    assert_eq!(ok(&["get", &name, "--timeout", "0"]).out(), "a\n\n b \nlast\n");
}

#[test]
fn messages_can_be_arguments_and_bytes_and_a_whole_input() {
    let (_stage, name) = with_queue("20");
    ok(&["put", &name, "one", "two words", ""]);
    run(shmq(&["put", &name, "--null"]), b"line\nline\0\xff\0").succeeds();
    run(shmq(&["put", &name, "--whole"]), b"a\nb\n").succeeds();
    let expected: [&[u8]; 6] = [b"one", b"two words", b"", b"line\nline", b"\xff", b"a\nb\n"];
    assert_eq!(shmq::peek(&name, 10).unwrap(), expected);
    assert_eq!(ok(&["drain", &name, "--null"]).out, b"one\0two words\0\0line\nline\0\xff\0a\nb\n\0");
    assert_eq!(ok(&["drain", &name]).out, b"");
}

#[test]
fn the_head_of_a_get_loses_nothing_that_is_not_printed() {
    let (_stage, name) = with_queue("20");
    for round in 0..40 {
        // Every other time somebody else is attached, who could be waiting for a turn.
        let other = (round % 2 == 0).then(|| ByteQueue::open(&name).unwrap());
        put(&name, b"1\n2\n3\n4\n5\n6\n7\n8\n9\n");
        let count = round % 3 + 1;
        let said =
            run(shell(&format!("set -o pipefail; shmq get $Q | head -n {count}"), &name), b"").succeeds();
        assert_eq!(said.lines(), strings(1..=count), "{said:?}");
        assert_eq!(left(&name), strings(count + 1..=9), "after {count}: {said:?}");
        drop(other);
        ok(&["drain", &name]);
    }
}

/// A service may be started without one.
#[test]
fn without_a_standard_output_nothing_is_taken_and_without_an_input_nothing_is_put() {
    let (_stage, name) = with_queue("10");
    put(&name, b"1\n2\n");
    for command in ["shmq get $Q --timeout 0 >&-", "shmq drain $Q >&-", "shmq put $Q <&-"] {
        run(shell(command, &name), b"").fails(1, &["closed"]);
    }
    assert_eq!(left(&name), ["1", "2"]);
    run(shell("shmq drain $Q >/dev/null", &name), b"").succeeds();
    assert!(left(&name).is_empty());
}

/// What wrote it into a pipe took it for read.
#[test]
fn a_put_that_gives_up_says_what_it_had_read() {
    let (_stage, name) = with_queue("1");
    put(&name, b"first\n");
    let said = run(shmq(&["put", &name, "--timeout", "0.1"]), b"second\nthird\n");
    said.fails(3, &["full", "read and not put: second"]);
}

#[test]
fn a_get_that_is_killed_loses_nothing() {
    let (_stage, name) = with_queue("20000");
    let numbers = strings(1..=20000).join("\n");
    for round in 0..12 {
        put(&name, numbers.as_bytes());
        let mut command = shmq(&["get", &name]);
        command.stdout(Stdio::piped());
        let mut get = Running::start(command);
        let mut output = BufReader::new(get.0.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        let reader = thread::spawn(move || {
            // What is cut off is printed again.
            output.read_to_string(&mut line).map(|_| line)
        });
        nap(round);
        get.0.kill().unwrap();
        assert_eq!(get.code(), -libc::SIGKILL);
        let printed = reader.join().unwrap().unwrap();
        let printed: Vec<_> =
            printed.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')).collect();
        let left = left(&name);
        let first = left.first().map_or(20001, |first| first.parse::<usize>().unwrap());
        assert_eq!(left.len(), 20001 - first);
        let whole: Vec<_> = (1..=printed.len()).map(|number| number.to_string()).collect();
        assert_eq!(printed, whole);
        // The message that it was at when it was killed may have been printed already.
        assert!(printed.len() == first - 1 || printed.len() == first, "{} and {first}", printed.len());
        ok(&["drain", &name]);
    }
}

#[test]
fn a_get_ends_when_its_reader_has_gone_though_nothing_comes() {
    let (_stage, name) = with_queue("20");
    let mut command = shmq(&["get", &name]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut get = Running::start(command);
    until("it is attached", || shmq::inspect(&name).unwrap().attached == 1);
    drop(get.0.stdout.take());
    assert_eq!(get.code(), 0);
    let mut said = String::new();
    get.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(said, "");
}

#[test]
fn a_reader_that_dawdles_does_not_hold_up_other_consumers() {
    let (_stage, name) = with_queue("20");
    let other = ByteQueue::open(&name).unwrap();
    put(&name, b"1\n2\n3\n");
    let mut command = shell("exec 3<&0; shmq get $Q | { read line; echo $line; read wait <&3; }", &name);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut pipeline = Running::start(command);
    let mut printed = BufReader::new(pipeline.0.stdout.take().unwrap());
    let mut line = String::new();
    printed.read_line(&mut line).unwrap();
    assert_eq!(line, "1\n");
    let start = Instant::now();
    // The second one is on its way to a reader that does not read. The third one is to be had.
    until("the second one has been let go", || left(&name) == ["3"]);
    assert!(start.elapsed() < Duration::from_secs(5), "after {:?}", start.elapsed());
    assert_eq!(other.get_timeout(Duration::from_secs(20)).unwrap(), b"3");
    pipeline.0.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
    assert_eq!(pipeline.code(), 0);
    let mut said = String::new();
    pipeline.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    // It was taken and never read: it is not lost all the same.
    assert!(said.contains("without reading it") && said.ends_with("shmq: 2\n"), "{said}");
}

#[test]
fn a_get_takes_what_comes_until_the_queue_is_closed() {
    let (_stage, name) = with_queue("20");
    let queue = ByteQueue::open(&name).unwrap();
    let mut command = shmq(&["get", &name]);
    command.stdout(Stdio::piped());
    let mut get = Running::start(command);
    let mut output = BufReader::new(get.0.stdout.take().unwrap());
    for number in 0..3 {
        queue.put(number.to_string().as_bytes()).unwrap();
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        assert_eq!(line, format!("{number}\n"));
    }
    queue.put(b"last").unwrap();
    queue.close();
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    assert_eq!((rest.as_str(), get.code()), ("last\n", 0));
    assert!(matches!(queue.get_nowait(), Err(GetError::Closed)));
    ok(&["get", &name]);
    run(shmq(&["put", &name, "more"]), b"").fails(1, &[&name, "closed", "nothing was put"]);
    assert_eq!(ok(&["drain", &name]).out(), "");
}

#[test]
fn a_time_that_passes_has_an_exit_code_of_its_own() {
    let (_stage, name) = with_queue("2");
    let start = Instant::now();
    run(shmq(&["get", &name, "--timeout", "0.5"]), b"").fails(3, &["no message"]);
    assert!(start.elapsed() >= Duration::from_millis(500));
    run(shmq(&["get", &name, "--timeout", "0"]), b"").fails(3, &["no message"]);
    put(&name, b"1\n2\n");
    let said = run(shmq(&["put", &name, "3", "--timeout", "0.3"]), b"");
    said.fails(3, &["full", "nothing was put"]);
    ok(&["get", &name, "-n", "1"]);
    run(shmq(&["put", &name, "--timeout", "0.1"]), b"3\n4\n").fails(3, &["1 message was put before that"]);
    // Some, but not as many as were asked for.
    assert_eq!(ok(&["get", &name, "--count", "5", "--timeout", "0.2"]).out(), "2\n3\n");
}

#[test]
fn a_put_waits_for_room() {
    let (_stage, name) = with_queue("2");
    let said = run(shell("seq 1000 | shmq put $Q & shmq get $Q --count 1000 | tail -n 1; wait", &name), b"");
    assert_eq!(said.succeeds().out(), "1000\n");
}

#[test]
fn a_drain_says_when_somebody_keeps_the_messages() {
    let (_stage, name) = with_queue("20");
    put(&name, b"1\n2\n");
    let queue = ByteQueue::open(&name).unwrap();
    let held = queue.consumer().unwrap();
    let said = run(shmq(&["drain", &name]), b"").fails(1, &["2 messages", "another process"]);
    assert!(said.err.contains(&format!("used by {}", process::id())), "{said:?}");
    run(shmq(&["get", &name, "--timeout", "0.1"]), b"").fails(3, &["2 messages", "another process"]);
    drop(held);
    assert_eq!(ok(&["drain", &name]).out(), "1\n2\n");
}

// ---------------------------------------------------------------------------------------------------
// Lifetime

#[test]
fn leaving_removes_nothing() {
    let stage = Stage::new();
    let name = stage.name("crashed");
    crash(&name, 3);
    for _ in 0..3 {
        put(&name, b"more\n");
        ok(&["get", &name, "--count", "1"]);
        ok(&["peek", &name]);
        ok(&["stat", &name]);
        assert_eq!(listed(&name)[2], "stale");
    }
    assert_eq!(ok(&["drain", &name]).out(), "more\nmore\nmore\n");
    assert_eq!(stat(&name)["state"], "stale");
}

#[test]
fn somebody_who_looks_on_does_not_keep_a_queue_from_going_with_its_last_user() {
    let stage = Stage::new();
    let name = stage.name("held");
    let mut command = role("hold", &[&name]);
    command.stdin(Stdio::piped());
    let mut holder = Running::start(command);
    until("it is there", || exists(&name));
    let mut gets: Vec<_> = (0..2)
        .map(|_| {
            let mut command = shmq(&["get", &name]);
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
            Running::start(command)
        })
        .collect();
    until("they are attached", || shmq::inspect(&name).unwrap().attached == 3);
    assert!(ByteQueue::create(&name, 1).is_err(), "a guest is attached, too");
    drop(holder.0.stdin.take());
    assert_eq!(holder.code(), 0);
    assert!(!exists(&name), "the last user left it behind");
    let mut printed = String::new();
    for get in &mut gets {
        assert_eq!(get.code(), 0);
        get.0.stdout.take().unwrap().read_to_string(&mut printed).unwrap();
        let mut said = String::new();
        get.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert!(said.contains("gone"), "{said}");
    }
    assert_eq!(printed, "held\n");
}

#[test]
fn a_crash_of_the_last_user_while_somebody_looks_on_leaves_the_queue() {
    let stage = Stage::new();
    let name = stage.name("held");
    let mut command = role("hold", &[&name]);
    command.stdin(Stdio::piped());
    let mut holder = Running::start(command);
    until("it is there", || exists(&name));
    let mut command = shmq(&["get", &name, "--count", "2"]);
    command.stdout(Stdio::piped());
    let mut get = Running::start(command);
    until("the first one is taken", || shmq::inspect(&name).unwrap().gets == 1);
    holder.0.kill().unwrap();
    holder.code();
    put(&name, b"1\n2\n");
    assert_eq!(get.code(), 0);
    assert_eq!((left(&name), stat(&name)["state"].as_str()), (strings(2..=2), Some("stale")));
}

#[test]
fn a_put_into_a_queue_that_has_gone_says_so() {
    let stage = Stage::new();
    let name = stage.name("gone");
    let queue = ByteQueue::create(&name, 2).unwrap();
    let mut command = shmq(&["put", &name, "1", "2", "3"]);
    command.stderr(Stdio::piped());
    let mut put = Running::start(command);
    until("it is full", || queue.qsize() == 2);
    drop(queue);
    assert!(!exists(&name));
    assert_eq!(put.code(), 1);
    let mut said = String::new();
    put.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(said.contains("gone") && said.contains("2 messages were put"), "{said}");
}

// ---------------------------------------------------------------------------------------------------
// Looking

#[test]
fn ls_tells_what_there_is_and_how_it_stands() {
    let stage = Stage::new();
    let [idle, live, crashed, broken, other] =
        ["idle", "live", "stale", "broken", "array"].map(|end| stage.name(end));
    ok(&["create", &idle, "--capacity", "7", "--schema", "jobs, version 2"]);
    put(&idle, b"a\nb\n");
    let queue = QueueOptions::new().capacity(1).create::<u8>(&live).unwrap();
    queue.put(&1).unwrap();
    queue.close();
    crash(&crashed, 3);
    fs::write(object(&broken), b"no segment").unwrap();
    let _array = shmq::Array::create(&other, &[1_u32, 2, 3]).unwrap();

    let row = listed(&idle);
    assert_eq!(row[1..5], ["queue", "idle", "2", "7"]);
    assert_eq!((row[6].as_str(), row[8].as_str()), ("0", "jobs, version 2"));
    assert!(row[5].ends_with("KiB") && row[7].ends_with(" s"), "{row:?}");
    let row = listed(&live);
    assert_eq!(
        (&row[1..5], row[6].as_str(), row.last().unwrap().as_str()),
        (&["queue", "live", "1", "1"].map(String::from)[..], "1", "closed")
    );
    assert_eq!(listed(&crashed)[1..5], ["queue", "stale", "3", "100"]);
    let row = listed(&broken);
    assert_eq!((row[2].as_str(), row[3].as_str()), ("broken", "-"));
    assert!(row.last().unwrap().contains("do not begin like a segment"), "{row:?}");
    assert_eq!(listed(&other)[1..5], ["array", "live", "-", "3"]);

    let all: Value = serde_json::from_slice(&ok(&["ls", "--json"]).out).unwrap();
    let names: Vec<_> = all.as_array().unwrap().iter().map(|info| info["name"].as_str().unwrap()).collect();
    assert!(names.is_sorted());
    assert!([&idle, &live, &crashed, &broken, &other].iter().all(|name| names.contains(&name.as_str())));
}

#[test]
fn stat_tells_everything_and_so_does_its_json() {
    let stage = Stage::new();
    let name = stage.name("q");
    ok(&["create", &name, "--capacity", "9", "--max-message", "100", "--schema", "label", "--mode", "0640"]);
    put(&name, b"abc\nde\n");
    ok(&["get", &name, "-n", "1"]);
    let queue = ByteQueue::open(&name).unwrap();
    let info = stat(&name);
    let fields: BTreeSet<_> = info.as_object().unwrap().keys().map(String::as_str).collect();
    let expected = [
        "name",
        "state",
        "reason",
        "kind",
        "schema",
        "persistent",
        "capacity",
        "max_message",
        "messages",
        "puts",
        "gets",
        "put_bytes",
        "get_bytes",
        "unfinished",
        "recoveries",
        "closed",
        "attached",
        "bytes",
        "created",
        "mode",
        "owner",
        "processes",
    ];
    assert_eq!(fields, BTreeSet::from(expected));
    for (field, number) in [
        ("capacity", 9),
        ("max_message", 100),
        ("messages", 1),
        ("puts", 2),
        ("gets", 1),
        ("put_bytes", 5),
        ("get_bytes", 3),
        ("unfinished", 2),
        ("recoveries", 0),
        ("attached", 1),
        ("mode", 0o640),
    ] {
        assert_eq!(info[field], number, "{field}");
    }
    assert_eq!(
        (&info["name"], &info["kind"], &info["schema"]),
        (&name.as_str().into(), &"queue".into(), &"label".into())
    );
    assert_eq!((&info["state"], &info["reason"]), (&"live".into(), &Value::Null));
    assert_eq!((&info["persistent"], &info["closed"]), (&true.into(), &false.into()));
    assert!(info["created"].as_u64().unwrap() > 1_700_000_000 && info["bytes"].as_u64().unwrap() >= 4096);
    let processes = info["processes"].as_array().unwrap();
    assert_eq!(processes.len(), 1, "{processes:?}");
    assert_eq!((&processes[0]["pid"], &processes[0]["stopped"]), (&process::id().into(), &false.into()));
    assert!(processes[0]["command"].as_str().unwrap().contains("cli"), "{processes:?}");
    let text = ok(&["stat", &name]).out().to_owned();
    for word in
        ["live", "label", "at most 9", "each of up to 100 bytes", "2 messages of 5 bytes", "1 handle", "0640"]
    {
        assert!(text.contains(word), "{word:?} is not in {text}");
    }
    drop(queue);
}

#[test]
fn stat_of_what_has_no_limit_and_of_what_has_no_messages() {
    let stage = Stage::new();
    let (queue, value) = (stage.name("q"), stage.name("v"));
    ok(&["create", &queue, "--unbounded"]);
    assert_eq!(stat(&queue)["capacity"], Value::Null);
    assert!(ok(&["stat", &queue]).out().contains("no limit"));
    assert_eq!(listed(&queue)[4], "unlimited");
    put(&queue, b"1\n2\n");
    assert_eq!(ok(&["drain", &queue]).out(), "1\n2\n");
    let _value = shmq::Value::create(&value, 1_u64).unwrap();
    assert!(ok(&["stat", &value]).out().contains("1 element of 8 bytes"));
}

#[test]
fn peek_shows_messages_and_takes_none() {
    let (_stage, name) = with_queue("20");
    run(shmq(&["put", &name, "--null"]), "h\u{e4}\0\0a\tb\u{1b}[2J\0\u{1}\0".as_bytes()).succeeds();
    run(shmq(&["put", &name, "--null"]), b"\xff\xfe\0").succeeds();
    assert_eq!(ok(&["peek", &name]).out(), "h\u{e4}\n\na\\tb\\u{1b}[2J\n\\u{1}\n\\xff\\xfe\n");
    assert_eq!(ok(&["peek", &name, "--hex"]).out(), "68c3a4\n\n6109621b5b324a\n01\nfffe\n");
    assert_eq!(ok(&["peek", &name, "--utf8", "-n", "3"]).out(), "h\u{e4}\n\na\tb\u{1b}[2J\n");
    assert_eq!(ok(&["peek", &name, "--count", "1"]).out(), "h\u{e4}\n");
    let info = stat(&name);
    assert_eq!((&info["messages"], &info["gets"], &info["attached"]), (&5.into(), &0.into(), &0.into()));
}

/// The stream is not disturbed, no message is torn, and they follow each other.
#[test]
fn peeking_at_full_speed() {
    const MESSAGES: u64 = 600_000;
    let stage = Stage::new();
    let name = stage.name("q");
    // The one queue is nearly empty or nearly full, as it happens; its ring wraps all the time.
    let queue =
        QueueOptions::new().capacity(2000).max_message(400).ring_bytes(200_000).create::<u8>(&name).unwrap();
    let count = MESSAGES.to_string();
    let mut consumer = Running::start(role("consume", &[&name, &count]));
    let mut producer = Running::start(role("produce", &[&name, &count]));
    let mut at_least = 0;
    let mut seen = 0;
    let mut peeks = 0;
    while consumer.0.try_wait().unwrap().is_none() {
        let by_command = peeks % 50 == 49;
        let max = if by_command { 5 } else { [1, 10, usize::MAX][peeks % 3] };
        let messages = if by_command {
            let said = ok(&["peek", &name, "--hex", "--count", "5"]);
            said.lines().iter().map(|line| unhex(line)).collect()
        } else {
            shmq::peek(&name, max).unwrap()
        };
        peeks += 1;
        assert!(messages.len() <= max);
        let numbers: Vec<_> = messages.iter().map(|message| number_of(message)).collect();
        assert!(numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{numbers:?}");
        if let Some(first) = numbers.first() {
            assert!(*first >= at_least, "{first} was gone already");
            at_least = *first;
        }
        seen += messages.len();
        let info = shmq::inspect(&name).unwrap();
        assert!(info.messages <= 2000 && info.puts >= at_least, "{info:?}");
    }
    assert_eq!((producer.code(), consumer.code()), (0, 0));
    let stats = queue.stats();
    assert_eq!((stats.puts, stats.gets, stats.recoveries), (MESSAGES, MESSAGES, 0));
    assert!(peeks > 50 && seen > 1000, "{peeks} peeks saw {seen} messages");
}

fn unhex(line: &str) -> Vec<u8> {
    (0..line.len()).step_by(2).map(|at| u8::from_str_radix(&line[at..at + 2], 16).unwrap()).collect()
}

#[test]
fn watch_prints_a_line_each_time_where_there_is_no_terminal() {
    let (_stage, name) = with_queue("20");
    put(&name, b"1\n2\n3\n");
    let said = ok(&["watch", &name, "--count", "3", "--interval", "0.05"]);
    let lines = said.lines();
    assert_eq!(lines.len(), 4, "{said:?}");
    assert_eq!(
        lines[0].split_whitespace().collect::<Vec<_>>(),
        ["messages", "puts/s", "gets/s", "attached", "state"]
    );
    assert_eq!(lines[1].split_whitespace().collect::<Vec<_>>(), ["3", "-", "-", "0", "idle"]);
    assert_eq!(lines[3].split_whitespace().collect::<Vec<_>>(), ["3", "0", "0", "0", "idle"]);
    assert!(!said.out().contains('\u{1b}'));
    // Its reader goes, or the queue does.
    run(shell("set -o pipefail; shmq watch $Q --interval 0.05 | head -n 2", &name), b"").succeeds();
    let mut command = shmq(&["watch", &name, "--interval", "0.05"]);
    command.stdout(Stdio::piped()).stderr(Stdio::null());
    let mut watch = Running::start(command);
    BufReader::new(watch.0.stdout.as_mut().unwrap()).read_line(&mut String::new()).unwrap();
    ok(&["rm", &name]);
    assert_eq!(watch.code(), 1);
}

#[test]
fn watch_redraws_on_a_terminal() {
    if Command::new("script").arg("--version").stdout(Stdio::null()).status().is_err() {
        return;
    }
    let (_stage, name) = with_queue("20");
    put(&name, b"1\n2\n3\n");
    let watch = "script -qec 'stty cols 60; \"$SHMQ\" watch \"$Q\" --count 3 --interval 0.05' /dev/null";
    let mut command = shell(watch, &name);
    command.env("TERM", "xterm");
    let said = run(command, b"").succeeds();
    let text = said.out();
    assert_eq!(text.matches("\u{1b}[4A").count(), 2, "{text:?}");
    assert!(text.contains("3 of 20") && text.contains("███"), "{text:?}");
    let longest = text.split(['\n', '\r', 'J']).map(|line| line.chars().count()).max();
    assert!(longest < Some(60), "{text:?}");
}

// ---------------------------------------------------------------------------------------------------
// Removing

/// In a /dev/shm of its own: what is stale elsewhere is other tests' business, or somebody's at work.
#[test]
fn gc_removes_what_nobody_uses_and_says_so_before() {
    let unshare = if rustix::process::geteuid().is_root() { "-m" } else { "-Urm" };
    let mount = "mount -t tmpfs -o size=1m tmpfs /dev/shm && exec \"$0\" \"$@\"";
    let under_unshare = |program: &Command| {
        let mut command = Command::new("unshare");
        command.args([unshare, "sh", "-c", mount]).arg(program.get_program()).args(program.get_args());
        command.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command
    };
    if run(under_unshare(&Command::new("true")), b"").code != 0 {
        println!("skipped: not allowed to mount anything here");
        return;
    }
    let said = run(under_unshare(&role("collect", &[])), b"");
    assert_eq!(said.code, 0, "{} {}", said.out(), said.err);
}

fn collect() {
    let stage = Stage::new();
    assert!(ok(&["ls"]).err.contains("shmq create NAME"));
    assert_eq!(ok(&["ls", "--json"]).out(), "[]\n");
    assert_eq!((ok(&["gc"]).out(), ok(&["gc"]).err.contains("nothing to remove")), ("", true));
    let [crashed, idle, live, broken] = ["stale", "idle", "live", "broken"].map(|end| stage.name(end));
    crash(&crashed, 3);
    create(&idle, "3");
    let queue = ByteQueue::create(&live, 3).unwrap();
    fs::write(object(&broken), b"no segment").unwrap();
    for arguments in [&["gc", "--dry-run"][..], &["gc", "-n"]] {
        let said = ok(arguments);
        assert!(said.out().starts_with(&format!("would remove {crashed} (queue, 3 messages, ")), "{said:?}");
        assert_eq!(said.lines().len(), 1, "{said:?}");
        assert!(said.err.contains(&format!("shmq rm {broken}")), "{said:?}");
        assert!(exists(&crashed));
    }
    let said = ok(&["gc"]);
    assert!(said.out().starts_with(&format!("removed {crashed} (queue, 3 messages, ")), "{said:?}");
    assert_eq!(said.lines().len(), 1, "{said:?}");
    assert!(!exists(&crashed) && [&idle, &live, &broken].iter().all(|name| exists(name)));
    queue.put(b"not disturbed").unwrap();
    // Somebody who gets from what a crash has left is attached to it.
    crash(&crashed, 0);
    let get = Running::start(shmq(&["get", &crashed]));
    until("it is attached", || shmq::inspect(&crashed).unwrap().attached == 1);
    assert!(!ok(&["gc"]).out().contains(&crashed));
    drop(get);
    assert_eq!(shmq::remove_stale().unwrap(), [crashed]);
    let said = run(shmq(&["create", &stage.name("large"), "--capacity", "1000"]), b"");
    said.fails(1, &["no space", "/dev/shm", "capacity"]);
}

#[test]
fn rm_removes_what_it_is_told_to() {
    let stage = Stage::new();
    let [idle, live, broken, missing] = ["idle", "live", "broken", "missing"].map(|end| stage.name(end));
    create(&idle, "3");
    let queue = ByteQueue::create(&live, 3).unwrap();
    fs::write(object(&broken), b"no segment").unwrap();
    let said = run(shmq(&["rm", &idle, &missing, &live, &broken]), b"").fails(1, &[&missing, "no queue"]);
    assert!(said.err.contains(&format!("attached to {live}")), "{said:?}");
    assert!([&idle, &live, &broken].iter().all(|name| !exists(name)));
    queue.put(b"they go on").unwrap();
}

// ---------------------------------------------------------------------------------------------------
// Mistakes

#[test]
fn a_missing_queue_is_an_error_that_names_create() {
    let stage = Stage::new();
    let name = stage.name("missing");
    for command in ["put", "get", "drain", "peek", "stat", "watch"] {
        let said = run(shmq(&[command, &name]), b"line\n");
        said.fails(1, &[&name, "no queue named", &format!("shmq create {name} --capacity"), "shmq ls"]);
    }
    assert!(!exists(&name));
}

#[test]
fn a_name_may_be_pasted_as_a_path_and_one_that_is_nearly_right_is_recognised() {
    let stage = Stage::new();
    let name = stage.name("orders");
    create(&name, "10");
    assert!(ok(&["stat", &format!("/dev/shm/shmq.{name}")]).out().contains(&name));
    for nearly in [stage.name("order"), name.to_uppercase(), format!("shmq.{name}")] {
        run(shmq(&["stat", &nearly]), b"").fails(1, &["did you mean", &name]);
    }
}

#[test]
fn a_name_that_is_none_or_missing() {
    for command in ["put", "get", "drain", "peek", "stat", "watch", "rm"] {
        run(shmq(&[command, "a/b"]), b"").fails(1, &["\"a/b\"", "holds '/'", "A-Z a-z 0-9 . _ -"]);
        run(shmq(&[command]), b"").fails(2, &["required", "Usage: shmq", "--help"]);
    }
    run(shmq(&["create", ".a", "--capacity", "1"]), b"").fails(1, &["begins with a dot"]);
    run(shmq(&["create", ".a"]), b"").fails(2, &["--capacity"]);
    run(shmq(&["create"]), b"").fails(2, &["NAME"]);
    run(shmq(&[]), b"").fails(2, &["Usage: shmq", "create", "drain"]);
    run(shmq(&["pus", "q"]), b"").fails(2, &["put"]);
    run(shmq(&["get", "q", "--timeout", "-1"]), b"").fails(2, &["--timeout"]);
    run(shmq(&["get", "q", "--timeout=soon"]), b"").fails(2, &["number of seconds"]);
}

#[test]
fn create_says_what_is_wrong() {
    let stage = Stage::new();
    let name = stage.name("q");
    let said = ok(&["create", &name, "--capacity", "10"]);
    assert!(said.out().starts_with(&format!("made {name} for 10 messages of up to 8192 bytes")), "{said:?}");
    let again = run(shmq(&["create", &name, "--capacity", "10"]), b"");
    again.fails(1, &["already exists", &format!("shmq rm {name}")]);
    let other = stage.name("r");
    run(shmq(&["create", &other, "--capacity", "0"]), b"").fails(1, &["--unbounded"]);
    run(shmq(&["create", &other, "--capacity", "many"]), b"").fails(2, &["--capacity"]);
    run(shmq(&["create", &other, "--capacity", "1", "--mode", "rw"]), b"").fails(2, &["octal"]);
    run(shmq(&["create", &other, "--capacity", "1", "--max-message", "2000000000"]), b"")
        .fails(1, &["1 GiB"]);
    assert!(!exists(&other));
}

#[test]
fn a_line_that_is_too_long() {
    let (_stage, name) = with_queue("20");
    let longest = "x".repeat(64);
    let said = run(shmq(&["put", &name]), format!("{longest}\n{longest}y\nz\n").as_bytes());
    said.fails(1, &["line 2", "64 bytes", "--max-message", "1 message was put before that"]);
    assert_eq!(left(&name), [longest]);
    let mut endless = Running::start(shell("shmq put $Q < /dev/zero 2> /dev/null", &name));
    assert_eq!(endless.code(), 1, "it reads no further than it must");
    run(shmq(&["put", &name, "--whole"]), &[b'x'; 65]).fails(1, &["longer than 64 bytes", "nothing was put"]);
}

#[test]
fn what_is_no_queue() {
    let stage = Stage::new();
    let name = stage.name("array");
    let _array = shmq::Array::create(&name, &[1_u32, 2, 3]).unwrap();
    for command in ["put", "get", "drain", "peek"] {
        run(shmq(&[command, &name]), b"line\n").fails(1, &["this is an array, not a queue", "stat"]);
    }
    let directory = stage.name("directory");
    fs::create_dir(object(&directory)).unwrap();
    for command in ["put", "get", "drain", "peek", "stat", "rm"] {
        run(shmq(&[command, &directory]), b"line\n").fails(1, &["not a regular file", "rm -r"]);
    }
}

#[test]
fn what_is_broken() {
    let stage = Stage::new();
    let (foreign, nonsense) = (stage.name("foreign"), stage.name("nonsense"));
    fs::write(object(&foreign), b"no segment").unwrap();
    for command in ["put", "get", "drain", "peek"] {
        run(shmq(&[command, &foreign]), b"line\n").fails(1, &["broken", &format!("shmq rm {foreign}")]);
    }
    let info = stat(&foreign);
    assert_eq!((&info["state"], &info["kind"]), (&"broken".into(), &"".into()));
    assert!(info["reason"].as_str().unwrap().contains("do not begin"), "{info}");
    assert!(ok(&["stat", &foreign]).out().contains("broken: its 10 bytes"));

    // Whole, but with words that make no sense: all of those that change.
    create(&nonsense, "20");
    put(&nonsense, b"1\n");
    fs::OpenOptions::new()
        .write(true)
        .open(object(&nonsense))
        .unwrap()
        .write_all_at(&[0x7a; 3584], 512)
        .unwrap();
    assert_eq!(listed(&nonsense)[2], "broken");
    run(shmq(&["peek", &nonsense]), b"").fails(1, &["corrupt", &format!("shmq rm {nonsense}")]);
    assert!(ok(&["stat", &nonsense]).out().contains("corrupt"));
    ok(&["watch", &nonsense, "--count", "1"]);
    let said = run(shmq(&["put", &nonsense, "x", "--timeout", "0.1"]), b"");
    assert!(matches!(said.code, 1 | 3), "{said:?}");
    ok(&["rm", &nonsense, &foreign]);
}

#[test]
fn no_permission() {
    let stage = Stage::new();
    let name = stage.name("private");
    create(&name, "3");
    let directory = env::temp_dir().join(stage.name("bin"));
    fs::create_dir(&directory).unwrap();
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).unwrap();
    let binary = directory.join("shmq");
    // By another process: a file that this one has open for writing, be it only in a child that another test is just
    // starting, cannot be run.
    let mut copy = Command::new("cp");
    copy.arg(shmq_binary()).arg(&binary);
    run(copy, b"").succeeds();
    // Root may do everything, so the command runs as somebody else; who is not root shuts itself out.
    let root = rustix::process::geteuid().is_root();
    if !root {
        fs::set_permissions(object(&name), fs::Permissions::from_mode(0o000)).unwrap();
    }
    let other = |arguments: &[&str]| {
        let mut command = Command::new(&binary);
        command.args(arguments).current_dir("/");
        if root {
            command.uid(65534).gid(65534);
        }
        run(command, b"line\n")
    };
    for command in ["put", "get", "drain", "peek", "stat", "watch"] {
        other(&[command, &name]).fails(1, &["no permission", &name, "--mode"]);
    }
    let said = other(&["ls"]).succeeds();
    assert!(!said.out().contains(&name) && said.err.contains("not shown"), "{said:?}");
    if root {
        other(&["rm", &name]).fails(1, &["no permission"]);
        assert!(exists(&name));
    }
}

// ---------------------------------------------------------------------------------------------------
// The command line itself

#[test]
fn help_is_for_newcomers() {
    let said = ok(&["--help"]);
    for word in
        ["shmq create jobs --capacity 1000", "seq 9 | shmq put jobs", "Exit codes", "NO_COLOR", "watch"]
    {
        assert!(said.out().contains(word), "{word:?} is not in {}", said.out());
    }
    let get = ok(&["get", "--help"]).out().split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        get.contains("what is not printed stays in the queue") && get.contains("0 takes what is there"),
        "{get}"
    );
    assert!(ok(&["--version"]).out().starts_with("shmq "));
}

#[test]
fn completions_for_the_shells_there_are() {
    for shell in ["bash", "zsh", "fish"] {
        let said = ok(&["completions", shell]);
        assert!(said.out().contains("drain") && said.out().contains("dry-run"));
    }
    run(shmq(&["completions", "cmd"]), b"").fails(2, &["bash"]);
    run(shell("set -o pipefail; shmq completions bash | head -c 1 > /dev/null", ""), b"").succeeds();
}

#[test]
fn colours_are_for_terminals() {
    let (_stage, name) = with_queue("3");
    for arguments in [&["ls"][..], &["stat", &name], &["get", &name, "--timeout", "0"], &["--help"]] {
        let said = run(shmq(arguments), b"");
        assert!(!said.out().contains('\u{1b}') && !said.err.contains('\u{1b}'), "{said:?}");
    }
    if Command::new("script").arg("--version").stdout(Stdio::null()).status().is_err() {
        return;
    }
    let on_terminal = |no_color: Option<&str>| {
        let mut command = shell("script -qec '\"$SHMQ\" ls' /dev/null", &name);
        command.env("TERM", "xterm").env_remove("CI").env_remove("NO_COLOR").env_remove("CLICOLOR");
        if let Some(value) = no_color {
            command.env("NO_COLOR", value);
        }
        run(command, b"").succeeds().out().contains('\u{1b}')
    };
    assert!(on_terminal(None) && !on_terminal(Some("1")));
}

#[test]
fn looking_does_not_end_in_an_error_when_its_reader_goes() {
    let stage = Stage::new();
    for number in 0..30 {
        create(&stage.name(&format!("{number:0100}")), "1");
    }
    for command in ["ls", "ls --json", "--help"] {
        let script = format!("set -o pipefail; shmq {command} | head -c 1 > /dev/null");
        let said = run(shell(&script, ""), b"").succeeds();
        assert_eq!(said.err, "");
    }
}
