use super::*;
use quota_testkit::fuzz::fuzz_text;

#[test]
fn what_is_printed_can_be_read() {
    let manifest = Manifest {
        quotas: Some(vec![QuotaEntry {
            subject: "tiers/freemium/users/*".into(),
            resource: "api.calls".into(),
            limit: Scalar::Number(10),
            period: Some("hour".into()),
            labels: BTreeMap::from([("a".into(), "yes: # no".into())]),
            ..QuotaEntry::default()
        }]),
        ..Manifest::default()
    };
    let text = manifest.print().unwrap();
    let read = Manifest::parse(&text).unwrap();
    assert_eq!(read.print().unwrap(), text);
    assert_eq!(read.quotas.unwrap()[0].labels["a"], "yes: # no");
}

#[test]
fn bad_files_say_what_is_wrong() {
    for (bad, why) in [
        (
            "quotas:\n- subject: a\n  resource: b\n  limit: 1\n  limits: 2\n",
            "limits",
        ),
        ("quotas: 7\n", "line"),
        ("quotes: []\n", "quotes"),
        ("quotas:\n- subject: a\n", "missing"),
    ] {
        let error = Manifest::parse(bad).err().unwrap().to_string();
        assert!(error.contains(why), "{error}");
    }
    assert!(Manifest::parse(" \n").unwrap().quotas.is_none());
}

const PIECES: &[&str] = &[
    "\n",
    "  ",
    "- ",
    ": ",
    "{",
    "}",
    "[",
    "]",
    "&a ",
    "*a",
    "!!int ",
    "|\n",
    "'",
    "\"",
    "#",
    "---\n",
    "quotas:",
    "limit: ",
    "period: ",
    "from: ",
    "unlimited",
    "16GiB",
    "hour",
    "1969-12-31",
    "~",
    "0x7f",
    ".inf",
    "yes",
];

/// A file is read, or the error says where; what is read means the same when it is written and read
/// again, and each of its quotas is a quota or an error that names the field.
#[test]
fn any_text_is_a_manifest_or_an_error() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let _inside = runtime.enter();
    let client = quota_client::Client::new(quota_client::Options::default()).unwrap();
    fuzz_text("manifests", 1000, PIECES, |text| {
        let manifest = match Manifest::parse(text) {
            Ok(manifest) => manifest,
            Err(error) => {
                assert!(error.to_string().contains("YAML: "), "{error}");
                return false;
            }
        };
        let written = manifest.print().unwrap();
        let read = Manifest::parse(&written).unwrap_or_else(|e| panic!("{e}\n{written}"));
        assert_eq!(read.print().unwrap(), written);
        for entry in &manifest.resources {
            if let Err(error) = entry.resource() {
                assert!(error.to_string().contains(&entry.key), "{error}");
            }
        }
        for entry in manifest.quotas.iter().flatten() {
            runtime.block_on(check_entry(entry, &client));
        }
        true
    });
}

async fn check_entry(entry: &QuotaEntry, client: &quota_client::Client) {
    let mut units = Units::new(client);
    units.learn(Resource {
        key: entry.resource.clone(),
        base_unit: "millicores".into(),
        display_unit: "cores".into(),
        display_ratio: 1000,
        ..Resource::default()
    });
    let quota = match entry.quota(&mut units).await {
        Ok(quota) => quota,
        Err(error) => {
            let (error, place) = (error.to_string(), format!(" of {}: ", entry.subject));
            let field = error.split_once(&place).map(|(_, rest)| rest);
            let field = field.and_then(|rest| rest.split_once(": "));
            assert!(field.is_some_and(|(f, _)| FIELDS.contains(&f)), "{error}");
            return;
        }
    };
    let written = QuotaEntry::of(&quota, &mut units).await.unwrap();
    let again = written.quota(&mut units).await.unwrap();
    assert_eq!(differences(&again, &quota), Vec::<String>::new());
}

const FIELDS: &[&str] = &[
    "limit",
    "period",
    "anchor",
    "rate",
    "bucket",
    "enforcement",
    "delay_max",
    "state",
    "from",
    "until",
    "max_request",
    "origin",
];
