//! Times for people: `90s`, `+7d`, `2026-12-01`, `3months`.

use std::time::{Duration, SystemTime};

use jiff::Timestamp as Instant;
use quota_client::v1::{Period, PeriodUnit};
use quota_client::{ProtoDuration, Timestamp, positive};

const SECOND_NS: i32 = 1_000_000_000;

/// A bound in time that can be taken away.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bound {
    /// At this instant.
    At(Timestamp),
    /// None.
    None,
}

/// Reads `500ms`, `90s`, `2h`, `7d`.
pub(crate) fn duration(text: &str) -> Result<ProtoDuration, String> {
    let length = exact(text)?;
    ProtoDuration::try_from(length).map_err(|_| format!("{text:?} is too long"))
}

/// Months and years have no fixed length.
fn exact(text: &str) -> Result<Duration, String> {
    let units = ["month", "year", "M", "y"];
    if units.iter().any(|unit| text.contains(unit)) {
        return Err(format!("{text:?} has no fixed length; days, such as 30d"));
    }
    let wrong = |why: &str| format!("{text:?} is no time such as 90s or 2h: {why}");
    // One part at a time: at the end of what a duration can be, humantime panics when it adds them.
    let (mut length, mut rest) = (Duration::ZERO, text);
    loop {
        let unit = rest.find(char::is_alphabetic).unwrap_or(rest.len());
        let next = rest[unit..].find(|c: char| c.is_ascii_digit());
        let (part, after) = rest.split_at(next.map_or(rest.len(), |next| unit + next));
        let part = humantime::parse_duration(part).map_err(|error| wrong(&error.to_string()))?;
        length = length
            .checked_add(part)
            .ok_or_else(|| wrong("it is too long"))?;
        if after.is_empty() {
            return Ok(length);
        }
        rest = after;
    }
}

/// Reads `2026-12-01`, `2026-12-01T08:00:00Z`, `+7d`, `now`; dates are in UTC.
pub(crate) fn instant(text: &str) -> Result<Timestamp, String> {
    let wrong = |error: jiff::Error| {
        format!("{text:?} is no instant such as 2026-12-01, 2026-12-01T08:00:00Z or +7d: {error}")
    };
    let later = match text {
        "now" => Some(Duration::ZERO),
        text => text.strip_prefix('+').map(exact).transpose()?,
    };
    let at = match later {
        Some(later) => Instant::try_from(now()).and_then(|now| now.checked_add(later)),
        None if text.len() == 10 => format!("{text}T00:00:00Z").parse(),
        None => text.parse(),
    };
    Ok(timestamp(at.map_err(wrong)?))
}

fn timestamp(at: Instant) -> Timestamp {
    let nanos = at.as_nanosecond();
    let second = i128::from(SECOND_NS);
    Timestamp {
        seconds: i64::try_from(nanos.div_euclid(second)).expect("a jiff instant fits"),
        nanos: i32::try_from(nanos.rem_euclid(second)).expect("less than a second"),
    }
}

/// The instant that was so long ago.
pub(crate) fn ago(length: &ProtoDuration) -> Result<Timestamp, String> {
    let length = positive(*length).ok_or("is below zero")?;
    let at = Instant::try_from(now()).and_then(|now| now.checked_sub(length));
    at.map(timestamp).map_err(|error| error.to_string())
}

/// Reads an instant, or `always`.
pub(crate) fn bound(text: &str) -> Result<Bound, String> {
    match text {
        "always" => Ok(Bound::None),
        text => instant(text).map(Bound::At),
    }
}

/// What was typed over what is there.
pub(crate) fn over(typed: Option<Bound>, live: Option<Timestamp>) -> Option<Timestamp> {
    match typed {
        Some(Bound::At(at)) => Some(at),
        Some(Bound::None) => None,
        None => live,
    }
}

/// Reads `none`, `hour`, `3months`, `600s`.
pub(crate) fn period(text: &str) -> Result<Period, String> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (count, name) = text.split_at(digits);
    let unit = match name
        .strip_suffix('s')
        .filter(|name| name.len() > 1)
        .unwrap_or(name)
    {
        "none" => PeriodUnit::None,
        "hour" => PeriodUnit::Hour,
        "day" => PeriodUnit::Day,
        "week" => PeriodUnit::Week,
        "month" => PeriodUnit::Month,
        "year" => PeriodUnit::Year,
        _ => {
            let wrong = |why| {
                format!("{text:?} is no period such as hour, 3months or 600s, or none: {why}")
            };
            return Ok(Period {
                unit: PeriodUnit::Fixed.into(),
                length: Some(duration(text).map_err(wrong)?),
                ..Period::default()
            });
        }
    };
    let count = match count {
        "" => 1,
        count => match count.parse() {
            Ok(count) if count > 0 => count,
            _ => return Err(format!("{text:?} is no number of periods: 1 to 1000")),
        },
    };
    Ok(Period {
        unit: unit.into(),
        count,
        ..Period::default()
    })
}

/// The same, written.
pub(crate) fn period_name(period: &Period) -> String {
    let name = match period.unit() {
        PeriodUnit::Unspecified | PeriodUnit::None => return "none".into(),
        PeriodUnit::Hour => "hour",
        PeriodUnit::Day => "day",
        PeriodUnit::Week => "week",
        PeriodUnit::Month => "month",
        PeriodUnit::Year => "year",
        PeriodUnit::Fixed => {
            return period
                .length
                .as_ref()
                .map(duration_name)
                .unwrap_or_default();
        }
    };
    match period.count {
        0 | 1 => name.into(),
        count => format!("{count}{name}s"),
    }
}

/// As in the ids of quotas: `60s`, `500ms`.
pub(crate) fn duration_name(length: &ProtoDuration) -> String {
    let length = positive(*length).unwrap_or_default();
    let nanos = length.as_nanos();
    match nanos {
        _ if nanos.is_multiple_of(1_000_000_000) => format!("{}s", length.as_secs()),
        _ if nanos.is_multiple_of(1_000_000) => format!("{}ms", length.as_millis()),
        _ => format!("{nanos}ns"),
    }
}

/// How long to wait, for people: never less than it is, and no finer than it can be read.
pub(crate) fn wait(length: &ProtoDuration) -> String {
    let length = positive(*length).unwrap_or_default();
    let up = |unit: u128| length.as_nanos().div_ceil(unit);
    let rounded = match length.as_secs() {
        0..10 => Duration::from_millis(u64::try_from(up(1_000_000)).unwrap_or(u64::MAX)),
        _ => Duration::from_secs(u64::try_from(up(1_000_000_000)).unwrap_or(u64::MAX)),
    };
    humantime::format_duration(rounded).to_string()
}

/// How long, for people.
pub(crate) fn shown(length: &ProtoDuration) -> String {
    let negative = length.seconds < 0 || length.nanos < 0;
    let absolute = ProtoDuration {
        seconds: length.seconds.saturating_abs(),
        nanos: length.nanos.saturating_abs(),
    };
    let length = positive(absolute).unwrap_or_default();
    let sign = if negative { "-" } else { "" };
    format!("{sign}{}", humantime::format_duration(length))
}

/// The wall clock of this machine, for what is typed relative to now.
#[allow(
    clippy::disallowed_methods,
    reason = "the caller's own clock: nothing is decided by it"
)]
fn now() -> SystemTime {
    SystemTime::now()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;
    use quota_testkit::fuzz::{NUMBERS, fuzz_text, run};

    #[test]
    fn periods_are_read_and_written() {
        for text in [
            "none", "hour", "day", "week", "month", "year", "3months", "2hours", "600s",
        ] {
            assert_eq!(period_name(&period(text).unwrap()), text);
        }
        assert_eq!(period("1months").unwrap(), period("month").unwrap());
        for bad in [
            "",
            "0months",
            "1.5y",
            "fortnight",
            "99999999999hours",
            "s",
            "-1hours",
        ] {
            assert!(period(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn waits_are_never_shown_too_short() {
        let of = |nanos: u64| ProtoDuration::try_from(Duration::from_nanos(nanos)).unwrap();
        assert_eq!(wait(&of(142_857_143)), "143ms");
        assert_eq!(wait(&of(600_190_986_183)), "10m 1s");
        assert_eq!(wait(&of(1)), "1ms");
    }

    #[test]
    fn instants_are_dates_times_and_distances() {
        assert_eq!(
            instant("2026-12-01").unwrap(),
            instant("2026-12-01T00:00:00Z").unwrap()
        );
        assert!(instant("+1h").unwrap().seconds > instant("now").unwrap().seconds);
        for bad in ["", "tomorrow", "2026-13-01", "+", "12"] {
            assert!(instant(bad).is_err(), "{bad}");
        }
    }

    const PIECES: &[&str] = &[
        "s",
        "ms",
        "ns",
        "h",
        "d",
        "month",
        "y",
        " ",
        "+",
        "-",
        ":",
        "T",
        "Z",
        ".",
        "now",
        "hour",
        "weeks",
        "none",
        "18446744073709551615s",
    ];

    fn repeats(error: &str, text: &str) -> bool {
        let typed = [text, text.strip_prefix('+').unwrap_or(text)];
        let repeated = |text: &str| error.contains(&format!("{text:?}"));
        assert!(typed.into_iter().any(repeated), "{error}");
        false
    }

    /// No server takes or gives a longer one, and nanoseconds of it can be written.
    fn is_bounded(length: &ProtoDuration) -> bool {
        length.seconds < 1 << 34
    }

    #[test]
    fn any_text_is_a_duration_or_an_error() {
        fuzz_text("durations", 4000, PIECES, |text| match duration(text) {
            Ok(length) => {
                if is_bounded(&length) {
                    assert_eq!(duration(&duration_name(&length)), Ok(length), "{text:?}");
                }
                let _ = (wait(&length), shown(&length));
                true
            }
            Err(error) => repeats(&error, text),
        });
    }

    #[test]
    fn any_text_is_an_instant_or_an_error() {
        fuzz_text("instants", 4000, PIECES, |text| match instant(text) {
            Ok(at) => {
                let written = crate::output::exact_time(at);
                assert_eq!(instant(&written), Ok(at), "{text:?} is {written}");
                assert!(bound(text).is_ok());
                true
            }
            Err(error) => repeats(&error, text),
        });
    }

    #[test]
    fn any_text_is_a_period_or_an_error() {
        fuzz_text("periods", 4000, PIECES, |text| match period(text) {
            Ok(read) => {
                let plain = read.unit() != PeriodUnit::None;
                if plain && read.length.as_ref().is_none_or(is_bounded) {
                    assert_eq!(period(&period_name(&read)), Ok(read), "{text:?}");
                }
                true
            }
            Err(error) => repeats(&error, text),
        });
    }

    /// Whatever a server answers can be shown.
    #[test]
    fn any_time_on_the_wire_is_shown() {
        let seconds = || prop_oneof![select(NUMBERS), any::<i64>()];
        let inputs = (seconds(), any::<i32>(), seconds(), any::<i32>());
        run(4000, &inputs, |(seconds, nanos, count, unit)| {
            let at = Timestamp { seconds, nanos };
            let _ = (crate::output::time(Some(at)), crate::output::exact_time(at));
            let length = ProtoDuration { seconds, nanos };
            let _ = (wait(&length), shown(&length), duration_name(&length));
            let period = Period {
                unit: unit % 9,
                count: i32::try_from(count).unwrap_or(i32::MIN),
                length: Some(length),
                ..Period::default()
            };
            let _ = period_name(&period);
        });
    }
}
