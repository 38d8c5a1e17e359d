//! The calendar, worked out from the days since 1 January 1970.

pub(super) const SECOND: i128 = 1_000_000_000;
const DAY: i128 = 24 * 3600 * SECOND;

/// A definition of periods as scripts write it: `none`, `hour`, `3months`, `600s`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Period(pub(super) String);

impl Period {
    pub(super) fn is_none(&self) -> bool {
        self.0 == "none"
    }

    /// First instant of the period that contains `now`, and the first after it.
    pub(super) fn window(&self, now: i128) -> (i128, Option<i128>) {
        let (text, anchor) = match self.0.split_once('@') {
            Some((text, anchor)) => (text, Some(anchor)),
            None => (self.0.as_str(), None),
        };
        let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
        let count: i128 = digits.parse().unwrap_or(1);
        let unit = text[digits.len()..].trim_end_matches('s');
        let anchor = anchor.map(Day::parse);
        let steps = |length: i128, first: i128| {
            let first = anchor.as_ref().map_or(first, Day::start);
            let start = first + (now - first).div_euclid(length * count) * length * count;
            (start, Some(start + length * count))
        };
        let first_day = Day { month: 0, day: 0 };
        let day = anchor.as_ref().unwrap_or(&first_day);
        match unit {
            "none" => (i128::MIN, None),
            "hour" | "h" => steps(3600 * SECOND, 0),
            "day" | "d" => steps(DAY, 0),
            "week" => steps(7 * DAY, 4 * DAY),
            "month" => months(count, day, now),
            "year" => months(12 * count, day, now),
            "" => steps(SECOND, 0),
            "m" => steps(60 * SECOND, 0),
            other => panic!("no period is made of {other:?}"),
        }
    }
}

/// A day: its month, counted from January 1970, and its place in it, from 0 on.
struct Day {
    month: i128,
    day: i128,
}

impl Day {
    fn parse(text: &str) -> Self {
        let parts: Vec<i128> = text.split('-').map(|n| n.parse().unwrap()).collect();
        Self {
            month: (parts[0] - 1970) * 12 + parts[1] - 1,
            day: parts[2] - 1,
        }
    }

    fn start(&self) -> i128 {
        let days: i128 = (0..self.month).map(days_of).sum();
        (days + self.day) * DAY
    }
}

/// A month without the anchor's day begins on its last one.
fn months(count: i128, anchor: &Day, now: i128) -> (i128, Option<i128>) {
    // One month after the other, from the first on: slow, and there is nothing in it to be wrong about.
    let mut month = anchor.month % count;
    let mut first: i128 = (0..month).map(days_of).sum();
    let start = |month: i128, first: i128| (first + anchor.day.min(days_of(month) - 1)) * DAY;
    loop {
        let next: i128 = first + (month..month + count).map(days_of).sum::<i128>();
        let end = start(month + count, next);
        if now < end {
            return (start(month, first), Some(end));
        }
        (month, first) = (month + count, next);
    }
}

/// Days of a month, counted from January 1970.
fn days_of(month: i128) -> i128 {
    let year = 1970 + month / 12;
    match month % 12 {
        1 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        1 => 28,
        3 | 5 | 8 | 10 => 30,
        _ => 31,
    }
}
