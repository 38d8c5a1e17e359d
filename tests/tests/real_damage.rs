//! C11.2 on the real binary: its files are damaged, at random places and cut off. A start recovers exactly, or
//! refuses and says what is damaged and what to do; it never shows a wrong number. Answers are remembered for
//! an hour, so a start needs every segment; where it does not, damage is left to `store verify`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use fastrand::Rng;
use quota_client::Client;
use quota_client::v1::{Allocation, Amount, GetServerInfoRequest, ReserveRequest, SubjectUsage};
use quota_tests::book::{Book, allocations, usage};
use quota_tests::process::{Launch, Server, files_with, refused, times, verify, verify_store};

/// Everything that a caller can see of a store.
#[derive(PartialEq, Debug)]
struct Seen(Vec<Allocation>, Vec<SubjectUsage>);

async fn seen(client: &Client) -> Seen {
    Seen(allocations(client).await, usage(client).await)
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(std::fs::copy(entry.path(), target).unwrap()),
        }
    }
}

fn files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files(&path, found),
            false => found.push(path),
        }
    }
    found.sort();
}

/// Damages a file at a random place; says how.
fn damage(path: &Path, random: &mut Rng) -> String {
    let mut bytes = std::fs::read(path).unwrap();
    if bytes.is_empty() {
        return "nothing left to damage".into();
    }
    // Where something is written, mostly: most of a segment is room for more.
    let used = bytes
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(1, |last| last + 1);
    let end = match random.u8(..8) {
        0 => bytes.len(),
        _ => used,
    };
    let at = random.usize(..end);
    let how = match random.u8(..4) {
        0 => {
            bytes.truncate(at);
            "cut off"
        }
        1 => {
            let end = (at + 512).min(bytes.len());
            bytes[at..end].fill(0);
            "zeroed"
        }
        _ => {
            bytes[at] ^= 1 << random.u8(..8);
            "flipped"
        }
    };
    std::fs::write(path, bytes).unwrap();
    format!("{} {how} at {at} of {used}", path.display())
}

/// A journal that was cut off after a kill is noticed, although nothing behind the cut can tell.
#[tokio::test]
async fn a_journal_that_was_cut_off() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let server = Server::start(&data);
    let mut book = Book::default();
    let mut sizes = Vec::new();
    let segment = data.join("journal/0000000001.seg");
    for number in 0..20 {
        let name = format!("c-{number}");
        book.ask(&server.client(), &name).await.unwrap();
        let bytes = std::fs::read(&segment).unwrap();
        sizes.push(bytes.iter().rposition(|byte| *byte != 0).unwrap());
    }
    server.kill();
    let whole = std::fs::read(&segment).unwrap();
    for within in [sizes[12] + 30, sizes[12] + 100, sizes[13] - 8] {
        // Each time from the whole: what was told of a second may stand between two answers.
        std::fs::write(&segment, &whole[..within]).unwrap();
        let (code, said) = refused(&data, &[]);
        assert_eq!(code, Some(5), "{said}");
        assert!(said.contains("0000000001.seg is damaged"), "{said}");
    }
    std::fs::write(&segment, whole).unwrap();
    book.survives_a_kill(Server::start(&data), &data).await;
}

fn bytes_in(directory: &Path) -> u64 {
    let entries = std::fs::read_dir(directory).unwrap();
    entries
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum()
}

/// A segment that a start does not need may be damaged: nothing that is seen changes, and `store verify` says
/// where.
#[tokio::test]
async fn damage_in_what_is_kept_for_audit() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let launch = Launch {
        settings: &[
            ("QUOTA_SEGMENT_BYTES", "65536"),
            ("QUOTA_OPERATIONS_HORIZON", "1s"),
        ],
        ..Launch::default()
    };
    let server = Server::launch(&data, &launch).unwrap();
    let client = server.client();
    let mut book = Book::default();
    let mut number = 0;
    while files_with(&data.join("journal"), ".seg") < 4 {
        book.ask(&client, &format!("k-{number}")).await.unwrap();
        number += 1;
    }
    // A hold ends when every answer is forgotten: the batch that closes it needs none.
    let reserve = ReserveRequest {
        subject: "tenants/t0".into(),
        amounts: vec![Amount {
            resource: "compute.cpu".into(),
            amount: 1,
        }],
        ttl: Some(Duration::from_secs(3).try_into().unwrap()),
        ..ReserveRequest::default()
    };
    client.reserve(reserve).await.unwrap();
    let holds = || client.get_server_info(GetServerInfoRequest::default());
    while holds().await.unwrap().holds > 0 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let whole = seen(&client).await;
    assert_eq!(server.terminate(), Some(0));
    let before = bytes_in(&data.join("journal"));
    verify_store(&data);
    // It needs no room: a full disk is when one wants to know.
    assert!(bytes_in(&data.join("journal")) <= before);

    let segment = data.join("journal/0000000001.seg");
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes[20_000] ^= 1;
    std::fs::write(&segment, &bytes).unwrap();
    let server = Server::launch(&data, &launch).unwrap();
    assert!(seen(&server.client()).await == whole, "a wrong number");
    assert_eq!(server.terminate(), Some(0));
    let (code, said) = verify(&data);
    assert_eq!(code, Some(5), "{said}");
    assert!(said.contains("0000000001.seg is damaged"), "{said}");
}

/// Damage anywhere: a start recovers exactly or refuses and names what is damaged; it never shows a wrong
/// number. After a clean stop the end of the journal is proven too; after a kill, damage to its last bytes passes
/// for a torn write.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_files() {
    let directory = tempfile::tempdir().unwrap();
    let settings = [
        ("QUOTA_SEGMENT_BYTES", "65536"),
        ("QUOTA_BASE_BYTES", "30000"),
    ];
    let launch = Launch {
        settings: &settings,
        ..Launch::default()
    };
    let mut random = Rng::with_seed(times("QUOTA_TEST_SEED", 12) as u64);
    let (mut exact, mut refusals) = (0, 0);
    for is_clean in [true, false] {
        let original = directory.path().join(format!("original-{is_clean}"));
        let server = Server::launch(&original, &launch).unwrap();
        let client = server.client();
        let mut book = Book::default();
        for number in 0..150 {
            book.ask(&client, &format!("d-{number}")).await.unwrap();
        }
        // The rows and a base reach about this far.
        for _ in 0..100 {
            tokio::time::sleep(Duration::from_millis(200)).await;
            let mut found = Vec::new();
            files(&original, &mut found);
            let is_base = |path: &PathBuf| path.extension().is_some_and(|end| end == "base");
            if found.iter().any(is_base) {
                break;
            }
        }
        tokio::time::sleep(Duration::from_millis(1000)).await;
        for number in 150..200 {
            book.ask(&client, &format!("d-{number}")).await.unwrap();
        }
        let without_two = seen(&client).await;
        book.ask(&client, "d-next").await.unwrap();
        let without_last = seen(&client).await;
        book.ask(&client, "d-last").await.unwrap();
        let whole = seen(&client).await;
        book.agrees(&client).await;
        match is_clean {
            true => assert_eq!(server.terminate(), Some(0)),
            false => server.kill(),
        }
        assert!(files_with(&original.join("journal"), ".seg") > 1);
        assert!(files_with(&original.join("bases"), ".base") > 0);
        for round in 0..times("QUOTA_TEST_DAMAGES", 30) {
            let data = directory.path().join(format!("{is_clean}-{round}"));
            copy(&original, &data);
            let mut all = Vec::new();
            files(&data, &mut all);
            all.retain(|path| std::fs::metadata(path).unwrap().len() > 0);
            // One place of the journal, or several of what can be made anew from it.
            let mut done = Vec::new();
            for _ in 0..random.usize(1..4) {
                let path = &all[random.usize(..all.len())];
                let made_anew =
                    path.starts_with(data.join("rows")) || path.starts_with(data.join("bases"));
                if made_anew || done.is_empty() {
                    done.push(damage(path, &mut random));
                }
                if !made_anew {
                    break;
                }
            }
            let stderr = directory.path().join("stderr");
            let launch = Launch {
                settings: &settings,
                stderr: Some(&stderr),
                ..Launch::default()
            };
            match Server::launch(&data, &launch) {
                Some(server) => {
                    let client = server.client();
                    let there = seen(&client).await;
                    let cut = !is_clean && (there == without_last || there == without_two);
                    assert!(there == whole || cut, "{done:?}: a wrong number");
                    exact += 1;
                }
                None => {
                    let (code, said) = refused(&data, &[]);
                    assert_eq!(code, Some(5), "{done:?}: {said}");
                    let told = ["restore", "remove", "name an"]
                        .iter()
                        .any(|word| said.contains(word));
                    let names = [".seg", "extent", "STORE", "rows", "journal"];
                    assert!(
                        names.iter().any(|name| said.contains(name)),
                        "{done:?}: {said}"
                    );
                    assert!(told, "{done:?}: {said}");
                    refusals += 1;
                }
            }
            std::fs::remove_dir_all(&data).unwrap();
        }
    }
    eprintln!("{exact} exact starts, {refusals} refusals");
    assert!(
        exact > 5 && refusals > 5,
        "{exact} exact, {refusals} refusals"
    );
}
