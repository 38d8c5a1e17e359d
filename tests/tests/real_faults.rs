//! C11 on the real binary, on real files: it is stopped, its disk is full, read-only or broken, it is killed at
//! a write, and its files are damaged. What was acknowledged is there, and nothing else but operations without
//! an answer. Faults of system calls need strace, file systems of their own need root; without, a line says
//! that a test was skipped.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use quota_client::v1::{ErrorReason, GetServerInfoRequest};
use quota_client::{Applied, Client, Error, Options};
use quota_tests::book::{Book, check};
use quota_tests::process::{
    Launch, Server, can_inject, files_with, health, refused, times, until_health, verify_store,
};
use rustix::process::Signal;
use tempfile::TempDir;
use tonic::Code;

const SERVING: i32 = 1;
const NOT_SERVING: i32 = 2;

/// UNAVAILABLE, because of the journal, with a time to wait.
fn is_journal_down(error: &Error) {
    assert_eq!(error.code, Code::Unavailable, "{error:?}");
    assert_eq!(error.reason, Some(ErrorReason::JournalUnavailable));
    assert!(error.retry_delay.is_some());
}

/// Asks for new operations until they are answered again; answers with the number of refusals.
async fn until_writable(client: &Client, book: &mut Book, prefix: &str) -> usize {
    for number in 0..1000 {
        match book.ask(client, &format!("{prefix}-{number}")).await {
            Ok(_) => return number,
            Err(error) => is_journal_down(&error),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("writes do not go on");
}

/// SIGSTOP and SIGCONT under load: callers see their deadlines pass and ask again with the same operation id,
/// and nothing is charged twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopped_and_continued_under_load() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let server = Server::start(&data);
    let stop = Arc::new(AtomicBool::new(false));
    let workers: Vec<_> = (0..8)
        .map(|worker| {
            let options = Options {
                endpoint: server.endpoint.clone(),
                timeout: Duration::from_millis(200),
                retry_for: Duration::ZERO,
                ..Options::default()
            };
            let (client, stop) = (Client::new(options).unwrap(), stop.clone());
            tokio::spawn(async move {
                let (mut book, mut late, mut replayed) = (Book::default(), 0, 0);
                for number in 0.. {
                    let name = format!("w{worker}-{number}");
                    loop {
                        match book.ask(&client, &name).await {
                            Ok(stored) => {
                                replayed += usize::from(stored);
                                break;
                            }
                            Err(error) => {
                                assert!(error.is_lost(), "{error:?}");
                                late += 1;
                            }
                        }
                    }
                    if stop.load(Ordering::Relaxed) {
                        return (book, late, replayed);
                    }
                }
                unreachable!("a worker ends when it is told to");
            })
        })
        .collect();
    for _ in 0..times("QUOTA_TEST_STOPS", 5) {
        tokio::time::sleep(Duration::from_millis(150)).await;
        server.signal(Signal::STOP);
        let asked = health(&server.endpoint, "").await.unwrap_err();
        assert!(
            matches!(asked.code(), Code::DeadlineExceeded | Code::Cancelled),
            "{asked:?}"
        );
        server.signal(Signal::CONT);
        until_health(&server.endpoint, "", SERVING).await;
    }
    stop.store(true, Ordering::Relaxed);
    let (mut book, mut late, mut replayed) = (Book::default(), 0, 0);
    for worker in workers {
        let known = worker.await.unwrap();
        book.add(known.0);
        late += known.1;
        replayed += known.2;
    }
    eprintln!(
        "{} operations, {late} deadlines passed, {replayed} answers were asked for again",
        book.answered()
    );
    assert!(late >= 8, "only {late} deadlines passed");
    assert_eq!(book.open(), 0);
    book.agrees(&server.client()).await;
    book.survives_a_kill(server, &data).await;
}

/// A file system of its own, gone with the value. None where this user may not mount.
struct Mount(TempDir);

impl Mount {
    fn new(size: &str) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
            .arg(directory.path())
            .output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self(directory));
        }
        eprintln!("skipped: this user may not mount a file system");
        None
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn remount(&self, how: &str) {
        let done = Command::new("mount")
            .args(["-o", &format!("remount,{how}")])
            .arg(self.path())
            .status();
        assert!(done.unwrap().success());
    }

    /// Takes all the room there is.
    fn fill(&self) -> PathBuf {
        let path = self.path().join("ballast");
        let mut file = std::fs::File::create(&path).unwrap();
        while file.write_all(&[0; 4096]).is_ok() {}
        path
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

/// A full disk: writes are refused, Checks go on, and when there is room again writes go on by themselves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_file_system() {
    let Some(mount) = Mount::new("12m") else {
        return;
    };
    let data = mount.path().join("data");
    let launch = Launch {
        settings: &[("QUOTA_SEGMENT_BYTES", "65536")],
        ..Launch::default()
    };
    let server = Server::launch(&data, &launch).unwrap();
    let client = server.client();
    let mut book = Book::default();
    for round in 0..2 {
        for number in 0..20 {
            let name = format!("before-{round}-{number}");
            book.ask(&client, &name).await.unwrap();
        }
        let ballast = mount.fill();
        // There is room in the segment for a while yet.
        let mut error = None;
        for number in 0..1000 {
            error = book
                .ask(&client, &format!("last-{round}-{number}"))
                .await
                .err();
            if error.is_some() {
                break;
            }
        }
        let error = error.expect("the disk is full");
        is_journal_down(&error);
        assert_eq!(error.applied, Applied::Unknown);
        assert_eq!(book.open(), 1);
        until_health(&server.endpoint, "", NOT_SERVING).await;
        for number in 0..30 {
            let refused = book.ask(&client, &format!("during-{round}-{number}")).await;
            is_journal_down(&refused.unwrap_err());
            check(&client).await;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(book.open(), 1, "what is refused at once is not in doubt");
        std::fs::remove_file(ballast).unwrap();
        until_writable(&client, &mut book, &format!("after-{round}")).await;
        until_health(&server.endpoint, "", SERVING).await;
        let applied = book.settle(&client).await;
        assert_eq!(applied, 1, "the failed batch is written before all others");
        book.agrees(&client).await;
    }
    book.survives_a_kill(server, &data).await;
}

/// A file system that may only be read: the server says so and changes nothing.
#[tokio::test]
async fn a_read_only_file_system() {
    let Some(mount) = Mount::new("12m") else {
        return;
    };
    let data = mount.path().join("data");
    mount.remount("ro");
    let (code, said) = refused(&data, &[]);
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("cannot be used: Read-only"), "{said}");
    mount.remount("rw");
    let server = Server::start(&data);
    let mut book = Book::default();
    for number in 0..10 {
        let name = format!("r-{number}");
        book.ask(&server.client(), &name).await.unwrap();
    }
    server.kill();
    mount.remount("ro");
    let (code, said) = refused(&data, &[]);
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("Read-only"), "{said}");
    mount.remount("rw");
    book.survives_a_kill(Server::start(&data), &data).await;
}

/// A store in `data` that has been started once, so that a start does little; none where no system call can
/// be made to fail.
async fn injected_store() -> Option<(TempDir, Book)> {
    if !can_inject() {
        return None;
    }
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let mut book = Book::default();
    book.survives_a_kill(Server::start(&data), &data).await;
    Some((directory, book))
}

/// C11.3: the operation whose flush failed is not acknowledged; the server goes on by itself with a fresh
/// segment, and the retry gets the first answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flush_that_fails() {
    let Some((directory, mut book)) = injected_store().await else {
        return;
    };
    let data = directory.path().join("data");
    let (mut failed, mut refused) = (0, 0);
    for at in [1, 2, 3, 5, 6, 7, 9, 12] {
        let inject = format!("fdatasync:error=EIO:when={at}");
        let launch = Launch {
            inject: Some(&inject),
            ..Launch::default()
        };
        let Some(server) = Server::launch(&data, &launch) else {
            // The flush was one of the start.
            refused += 1;
            continue;
        };
        let client = server.client();
        let segments = || files_with(&data.join("journal"), ".seg");
        let before = segments();
        for number in 0..20 {
            let name = format!("{at}-{number}");
            let Err(error) = book.ask(&client, &name).await else {
                continue;
            };
            is_journal_down(&error);
            assert_eq!(error.applied, Applied::Unknown, "{error:?}");
            failed += 1;
            until_writable(&client, &mut book, &format!("after-{at}")).await;
            assert!(book.ask(&client, &name).await.unwrap(), "it was applied");
            assert!(segments() > before, "the batch went to a fresh segment");
        }
        assert_eq!(book.open(), 0);
        book.survives_a_kill(server, &data).await;
    }
    eprintln!("{failed} flushes failed under way, {refused} at the start");
    assert!(failed >= 4, "only {failed} flushes failed under way");
}

/// All flushes fail from one on: writes stay refused, Checks go on, and health says which is which.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flushes_that_fail_from_then_on() {
    let Some((directory, mut book)) = injected_store().await else {
        return;
    };
    let data = directory.path().join("data");
    for (at, is_killed) in [(10, true), (13, false)] {
        let inject = format!("fdatasync:error=EIO:when={at}+");
        let launch = Launch {
            inject: Some(&inject),
            ..Launch::default()
        };
        let server = Server::launch(&data, &launch).unwrap();
        let client = server.client();
        let mut refusals = 0;
        for number in 0..60 {
            match book.ask(&client, &format!("{at}-{number}")).await {
                Ok(_) => assert_eq!(refusals, 0, "acknowledged without a flush"),
                Err(error) => {
                    is_journal_down(&error);
                    refusals += 1;
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
            check(&client).await;
        }
        assert!(refusals > 20, "only {refusals} refusals");
        assert_eq!(book.open(), 1, "the first failed; the others were refused");
        let unwritable = ["", "quota.v1.ConsumeService", "quota.v1.ReserveService"];
        for service in unwritable {
            until_health(&server.endpoint, service, NOT_SERVING).await;
        }
        until_health(&server.endpoint, "quota.v1.CheckService", SERVING).await;
        let info = client.get_server_info(GetServerInfoRequest {}).await;
        let info = info.unwrap();
        assert!(info.journal_unavailable && info.subjects > 0, "{info:?}");
        if is_killed {
            server.kill();
        } else {
            let code = tokio::task::spawn_blocking(|| server.terminate());
            assert_eq!(code.await.unwrap(), Some(0), "it stops all the same");
        }
        book.survives_a_kill(Server::start(&data), &data).await;
    }
}

/// Killed exactly at one of its system calls while it works.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_a_write() {
    let Some((directory, mut book)) = injected_store().await else {
        return;
    };
    let data = directory.path().join("data");
    let most = times("QUOTA_TEST_WRITES", 20);
    let writes = [1, 2, 3, 4, 6, 8, 11, 15]
        .into_iter()
        .chain((20..=most).step_by(5));
    let mut faults: Vec<String> = writes
        .map(|at| format!("pwrite64:signal=KILL:when={at}"))
        .collect();
    faults.extend([2, 7].map(|at| format!("fdatasync:signal=KILL:when={at}")));
    faults.extend([1, 2, 3].map(|at| format!("rename:signal=KILL:when={at}")));
    let (mut under_way, mut at_the_start) = (0, 0);
    for inject in &faults {
        let launch = Launch {
            inject: Some(inject),
            // Small segments are made often.
            settings: &[("QUOTA_SEGMENT_BYTES", "65536")],
            ..Launch::default()
        };
        match Server::launch(&data, &launch) {
            None => at_the_start += 1,
            Some(mut server) => {
                let client = server.client();
                for number in 0..400 {
                    if let Err(error) = book.ask(&client, &format!("{inject}-{number}")).await {
                        assert!(error.is_lost(), "{error:?}");
                        break;
                    }
                }
                assert!(server.ends().await, "{inject} did not happen");
                under_way += 1;
            }
        }
        let server = Server::start(&data);
        book.agrees(&server.client()).await;
        if under_way % 2 == 0 {
            book.settle(&server.client()).await;
            book.agrees(&server.client()).await;
        }
        server.kill();
    }
    verify_store(&data);
    eprintln!("{under_way} deaths under way, {at_the_start} at the start");
    assert!(under_way >= 5, "only {under_way} deaths under way");
}

/// Killed at each of the first system calls of a start: recovery can be cut off anywhere and begun again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_while_it_recovers() {
    if !can_inject() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let mut book = Book::default();
    let most = times("QUOTA_TEST_STARTS", 4);
    let mut deaths = 0;
    for call in [
        "pwrite64",
        "fdatasync",
        "fsync",
        "rename",
        "ftruncate",
        "fallocate",
    ] {
        for at in 1..=most {
            // A tail that has to be settled, and rows that are behind.
            let server = Server::start(&data);
            let client = server.client();
            book.agrees(&client).await;
            for number in 0..5 {
                let name = format!("{call}-{at}-{number}");
                book.ask(&client, &name).await.unwrap();
            }
            server.kill();
            let inject = format!("{call}:signal=KILL:when={at}");
            let launch = Launch {
                inject: Some(&inject),
                ..Launch::default()
            };
            match Server::launch(&data, &launch) {
                None => deaths += 1,
                Some(server) => {
                    // A start does that fewer times.
                    server.kill();
                    break;
                }
            }
        }
    }
    let server = Server::start(&data);
    book.survives_a_kill(server, &data).await;
    eprintln!("{deaths} deaths at the start");
    assert!(deaths >= 8, "only {deaths} deaths at the start");
}
