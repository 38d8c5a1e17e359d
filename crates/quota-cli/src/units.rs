//! Amounts for people: `4cores`, `16GiB`, `1.5TB`, `100Mbit/s`. Exact, or an error: nothing is rounded into
//! a request.

use std::collections::HashMap;

use quota_client::v1::{GetResourceRequest, Limit, Resource, Unlimited, limit};
use quota_client::{Client, Error};

use crate::Failure;

/// A name, and base units in one as a fraction.
type Unit = (&'static str, i128, i128);

/// Units of each base unit, with base units in one as a fraction; those shown come in order of size.
const UNITS: &[(&str, &[Unit])] = &[
    (
        "millicores",
        &[("m", 1, 1), ("cores", 1000, 1), ("core", 1000, 1)],
    ),
    ("milli", &[("GPUs", 1000, 1), ("GPU", 1000, 1)]),
    ("bytes", BYTES),
    (
        "bytes/s",
        &[
            ("B/s", 1, 1),
            ("kB/s", 1_000, 1),
            ("MB/s", 1_000_000, 1),
            ("GB/s", 1_000_000_000, 1),
            ("bit/s", 1, 8),
            ("kbit/s", 125, 1),
            ("Mbit/s", 125_000, 1),
            ("Gbit/s", 125_000_000, 1),
        ],
    ),
];
const BYTES: &[Unit] = &[
    ("B", 1, 1),
    ("kB", 1_000, 1),
    ("MB", 1_000_000, 1),
    ("GB", 1_000_000_000, 1),
    ("TB", 1_000_000_000_000, 1),
    ("PB", 1_000_000_000_000_000, 1),
    ("KiB", 1 << 10, 1),
    ("MiB", 1 << 20, 1),
    ("GiB", 1 << 30, 1),
    ("TiB", 1 << 40, 1),
    ("PiB", 1 << 50, 1),
];
const DECIMAL: [(&str, i64); 5] = [
    ("PB", 1_000_000_000_000_000),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
];
const BINARY: [(&str, i64); 5] = [
    ("PiB", 1 << 50),
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
];

/// The resources that a command speaks of, read once.
pub(crate) struct Units<'a> {
    client: &'a Client,
    known: HashMap<String, Resource>,
}

impl<'a> Units<'a> {
    pub(crate) fn new(client: &'a Client) -> Self {
        Self {
            client,
            known: HashMap::new(),
        }
    }

    /// Takes a resource for known.
    pub(crate) fn learn(&mut self, resource: Resource) {
        self.known.insert(resource.key.clone(), resource);
    }

    /// The units of a resource.
    pub(crate) async fn of(&mut self, key: &str) -> Result<Resource, Error> {
        if let Some(known) = self.known.get(key) {
            return Ok(known.clone());
        }
        let request = GetResourceRequest { key: key.into() };
        let answer = self.client.get_resource(request).await?;
        let resource = answer.resource.unwrap_or_default();
        self.known.insert(key.into(), resource.clone());
        Ok(resource)
    }

    /// An amount as it was typed, in base units.
    pub(crate) async fn amount(&mut self, key: &str, text: &str) -> Result<i64, Failure> {
        if let Ok(bare) = text.parse() {
            return Ok(bare);
        }
        let resource = self.of(key).await?;
        let (sign, size) = match text.strip_prefix('-') {
            Some(size) => (-1, size),
            None => (1, text),
        };
        let amount = parse(size, &resource).map_err(Failure::Usage)?;
        Ok(sign * amount)
    }

    /// A limit as it was typed.
    pub(crate) async fn limit(&mut self, key: &str, text: &str) -> Result<Limit, Failure> {
        let limit = match text {
            "unlimited" => limit::Limit::Unlimited(Unlimited {}),
            text => limit::Limit::Value(self.amount(key, text).await?),
        };
        Ok(Limit { limit: Some(limit) })
    }

    /// An amount for people; in base units where the resource is unknown.
    pub(crate) async fn show(&mut self, key: &str, amount: i64) -> String {
        match self.of(key).await {
            Ok(resource) => show(amount, &resource),
            Err(_) => amount.to_string(),
        }
    }

    /// A limit for people.
    pub(crate) async fn show_limit(&mut self, key: &str, limit: Option<&Limit>) -> String {
        match limit.and_then(|limit| limit.limit.as_ref()) {
            Some(limit::Limit::Value(value)) => self.show(key, *value).await,
            Some(limit::Limit::Unlimited(_)) => "unlimited".into(),
            None => "-".into(),
        }
    }
}

/// An amount as it can be typed again, exact: in the unit that people use where that can be read back.
pub(crate) fn typed(amount: i64, resource: &Resource) -> String {
    let shown = show(amount, resource).replace(' ', "");
    match parse(&shown, resource) {
        Ok(read) if read == amount => shown,
        _ => amount.to_string(),
    }
}

/// Splits `RESOURCE=AMOUNT`.
pub(crate) fn split(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, amount)) if !key.is_empty() && !amount.is_empty() => {
            Ok((key.into(), amount.into()))
        }
        _ => Err(format!(
            "{text:?} is not RESOURCE=AMOUNT, such as compute.cpu=4cores"
        )),
    }
}

fn parse(text: &str, resource: &Resource) -> Result<i64, String> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim();
    let (per, of) = ratio(unit, resource).ok_or_else(|| {
        format!(
            "{text:?}: {unit:?} is no unit of {}; {}",
            resource.key,
            units_of(resource)
        )
    })?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let scale = 10_i128.checked_pow(fraction.len().try_into().unwrap_or(u32::MAX));
    let exact = || {
        let mantissa: i128 = format!("{whole}{fraction}").parse().ok()?;
        let above = mantissa.checked_mul(per)?;
        let below = scale?.checked_mul(of)?;
        (above % below == 0).then(|| i64::try_from(above / below).ok())?
    };
    exact().ok_or_else(|| {
        format!(
            "{text:?} is not a whole number of {} that fits",
            resource.base_unit
        )
    })
}

fn ratio(unit: &str, resource: &Resource) -> Option<(i128, i128)> {
    if unit.is_empty() || unit == resource.base_unit {
        return Some((1, 1));
    }
    if unit == resource.display_unit {
        return Some((resource.display_ratio.into(), 1));
    }
    let units = UNITS
        .iter()
        .find(|(base, _)| *base == resource.base_unit)?
        .1;
    units
        .iter()
        .find(|(name, _, _)| *name == unit)
        .map(|(_, per, of)| (*per, *of))
}

fn units_of(resource: &Resource) -> String {
    let mut names = vec![resource.base_unit.as_str(), resource.display_unit.as_str()];
    if let Some((_, units)) = UNITS.iter().find(|(base, _)| *base == resource.base_unit) {
        names.extend(units.iter().map(|(name, _, _)| *name));
    }
    let mut each: Vec<&str> = Vec::new();
    for name in names {
        if !each.contains(&name) {
            each.push(name);
        }
    }
    each.join(", ")
}

/// An amount in the unit that people use, exact to three digits behind the point, else in base units.
pub(crate) fn show(amount: i64, resource: &Resource) -> String {
    show_part(amount.into(), 1, resource)
}

/// The same of `amount` divided by `by`, such as a mean.
pub(crate) fn show_part(amount: i128, by: i128, resource: &Resource) -> String {
    let by = by.max(1);
    if amount < 0 {
        let positive = amount.saturating_neg().min(i64::MAX.into());
        return format!("-{}", show_part(positive, by, resource));
    }
    let ratio = i128::from(resource.display_ratio.max(1));
    let decimal_bytes = DECIMAL
        .iter()
        .any(|(name, _)| *name == resource.display_unit);
    if resource.base_unit == "bytes" {
        let table = if decimal_bytes { DECIMAL } else { BINARY };
        let whole = amount / by;
        let unit = table.iter().find(|(_, bytes)| whole >= (*bytes).into());
        return match unit {
            Some((name, bytes)) => decimal(amount, by.saturating_mul((*bytes).into()), name),
            None => decimal(amount, by, "B"),
        };
    }
    if ratio == 1 {
        return decimal(amount, by, "");
    }
    // Less than can be shown is shown in base units, and not as nothing.
    let display = by.saturating_mul(ratio);
    if amount != 0 && amount.saturating_mul(2000) < display {
        return decimal(amount, by, &resource.base_unit);
    }
    decimal(amount, display, &resource.display_unit)
}

/// `amount` divided by `by`, to three digits behind the point.
fn decimal(amount: i128, by: i128, unit: &str) -> String {
    let (whole, left) = (amount / by, (amount % by).saturating_mul(1000));
    let thousandths = left.saturating_add(by / 2) / by;
    let (whole, rest) = (whole + thousandths / 1000, thousandths % 1000);
    let digits = format!("{rest:03}");
    let digits = digits.trim_end_matches('0');
    let about = if left % by == 0 { "" } else { "~" };
    let point = if digits.is_empty() { "" } else { "." };
    let space = if unit.is_empty() { "" } else { " " };
    format!("{about}{whole}{point}{digits}{space}{unit}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;
    use quota_testkit::fuzz::{NUMBERS, fuzz_text, run};

    fn resource(base: &str, display: &str, ratio: i64) -> Resource {
        Resource {
            key: "some.thing".into(),
            base_unit: base.into(),
            display_unit: display.into(),
            display_ratio: ratio,
            ..Resource::default()
        }
    }

    #[test]
    fn typed_amounts_are_exact() {
        let cpu = resource("millicores", "cores", 1000);
        let memory = resource("bytes", "GiB", 1 << 30);
        let bandwidth = resource("bytes/s", "Mbit/s", 125_000);
        assert_eq!(parse("4cores", &cpu), Ok(4000));
        assert_eq!(parse("0.5cores", &cpu), Ok(500));
        assert_eq!(parse("16GiB", &memory), Ok(16 << 30));
        assert_eq!(parse("16GB", &memory), Ok(16_000_000_000));
        assert_eq!(parse("100Mbit/s", &bandwidth), Ok(12_500_000));
        assert_eq!(parse("8bit/s", &bandwidth), Ok(1));
        for bad in ["4apples", "0.0001cores", "cores", "1.2.3cores", "-4cores"] {
            assert!(parse(bad, &cpu).is_err(), "{bad}");
        }
        assert!(parse("1bit/s", &bandwidth).is_err());
        assert!(parse("99999999999PiB", &memory).is_err());
    }

    #[test]
    fn shown_amounts_say_when_they_are_rounded() {
        let cpu = resource("millicores", "cores", 1000);
        let memory = resource("bytes", "GiB", 1 << 30);
        assert_eq!(show(128_000, &cpu), "128 cores");
        assert_eq!(show(1_500, &cpu), "1.5 cores");
        assert_eq!(show(16 << 30, &memory), "16 GiB");
        assert_eq!(show((16 << 30) + 1, &memory), "~16 GiB");
        assert_eq!(show(7, &resource("count", "count", 1)), "7");
        let egress = resource("bytes", "GB", 1_000_000_000);
        assert_eq!(show(5_000_000_000, &egress), "5 GB");
        assert_eq!(show(1_500_000_000_000, &egress), "1.5 TB");
        assert_eq!(show(1, &resource("micro", "units", 1_000_000)), "1 micro");
    }

    #[test]
    fn shown_parts_are_not_cut_to_whole_units() {
        let hour = 3_600_000_000_000;
        let (cpu, count) = (
            resource("millicores", "cores", 1000),
            resource("count", "count", 1),
        );
        let memory = resource("bytes", "GiB", 1 << 30);
        assert_eq!(show_part(2700 * hour, 2 * hour, &cpu), "1.35 cores");
        assert_eq!(show_part(4000 * hour / 3600, hour, &cpu), "~0.001 cores");
        assert_eq!(
            show_part(300 * hour / 3600, hour, &cpu),
            "~0.083 millicores"
        );
        assert_eq!(show_part(5, 2, &count), "2.5");
        assert_eq!(show_part(2, 3, &count), "~0.667");
        assert_eq!(show_part(1999, 1000, &count), "1.999");
        assert_eq!(show_part(19_999, 10_000, &count), "~2");
        assert_eq!(show_part(-5, 2, &count), "-2.5");
        assert_eq!(show_part(3 << 30, 2, &memory), "1.5 GiB");
        assert_eq!(show_part(1, 2, &memory), "0.5 B");
        assert_eq!(show_part(0, hour, &memory), "0 B");
        let wide = i128::from(i64::MAX) * i128::from(i64::MAX);
        assert_eq!(
            show_part(wide, i64::MAX.into(), &count),
            i64::MAX.to_string()
        );
    }

    const PIECES: &[&str] = &[
        "cores",
        "m",
        ".",
        "-",
        " ",
        "0.5",
        "GiB",
        "bit/s",
        "e9",
        "some.thing=",
    ];

    fn resources() -> [Resource; 6] {
        [
            resource("millicores", "cores", 1000),
            resource("bytes", "GiB", 1 << 30),
            resource("bytes/s", "Mbit/s", 125_000),
            resource("micro", "units", 1_000_000),
            resource("count", "dozens", i64::MAX),
            resource("count", "count", 0),
        ]
    }

    #[test]
    fn any_text_is_an_amount_or_an_error_that_repeats_it() {
        fuzz_text("amounts", 4000, PIECES, |text| {
            let [cpu, others @ ..] = resources();
            for resource in &others {
                check_amount(text, resource);
            }
            let _ = split(text).map_err(|error| assert!(error.contains(&format!("{text:?}"))));
            check_amount(text, &cpu)
        });
    }

    fn check_amount(text: &str, resource: &Resource) -> bool {
        match parse(text, resource) {
            Ok(amount) => {
                assert!(amount >= 0, "{text:?} is {amount}");
                check_typed(amount, resource);
                true
            }
            Err(error) => {
                assert!(error.contains(&format!("{text:?}")), "{error}");
                false
            }
        }
    }

    /// What is shown to be typed again is the same amount.
    fn check_typed(amount: i64, resource: &Resource) {
        let typed = typed(amount, resource);
        let read = typed.parse().or_else(|_| parse(&typed, resource));
        assert_eq!(read, Ok(amount), "{typed}");
    }

    #[test]
    fn any_amount_can_be_typed_again() {
        let numbers = prop_oneof![select(NUMBERS), any::<i64>()];
        run(4000, &(numbers.clone(), numbers), |(amount, ratio)| {
            for mut resource in resources() {
                check_typed(amount, &resource);
                resource.display_ratio = ratio;
                check_typed(amount, &resource);
            }
        });
    }
}
