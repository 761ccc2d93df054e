//! Dates and times of an order file → moments and days.

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::Offset;
use toml::de::DeValue;
use toml::value::Datetime;

use super::reader::{Meaning, is_a};

pub(super) const TIME_EXAMPLE: &str = "2022-07-18T09:00:00+02:00";

/// An offset date-time. A court's day begins and ends somewhere: without the offset nobody could say when.
pub(super) fn time(value: &DeValue) -> Meaning<Timestamp> {
    let written = datetime(value, TIME_EXAMPLE)?;
    let (Some(date), Some(time)) = (written.date, written.time) else {
        return Err(incomplete(written));
    };
    let seconds = match written.offset {
        None => return Err(incomplete(written)),
        Some(toml::value::Offset::Z) => 0,
        Some(toml::value::Offset::Custom { minutes }) => i32::from(minutes) * 60,
    };
    let moment = || {
        let nanosecond = i32::try_from(time.nanosecond.unwrap_or(0)).ok()?;
        // RFC 3339 §5.7 allows a leap second, which no clock of ours shows.
        let second = time.second.unwrap_or(0).min(59);
        let time = jiff::civil::Time::new(time.hour as i8, time.minute as i8, second as i8, nanosecond).ok()?;
        Offset::from_seconds(seconds).ok()?.to_timestamp(civil(date)?.to_datetime(time)).ok()
    };
    moment().ok_or_else(|| format!("is {written}, a moment that does not exist"))
}

/// The mistake of a date or time that is not a moment, with the way to mend it.
fn incomplete(written: Datetime) -> String {
    match (written.date, written.time) {
        (Some(_), Some(_)) => format!("has no offset; give it one, e.g. {written}Z or {written}+02:00"),
        (Some(date), None) => {
            format!("is a date alone; give it a time and an offset, e.g. {date}T23:59:59Z or {date}T23:59:59+02:00")
        }
        _ => format!("is a time alone; give it a date and an offset, e.g. {TIME_EXAMPLE}"),
    }
}

/// A local date: of an addendum only the day is known.
pub(super) fn day(value: &DeValue) -> Meaning<Date> {
    let written = datetime(value, "2022-09-01")?;
    match (written.date, written.time) {
        (Some(date), None) => civil(date).ok_or_else(|| format!("is {written}, a day that does not exist")),
        (Some(date), Some(_)) => Err(format!("is a date with a time; it takes the date alone, {date}")),
        (None, _) => Err("is a time alone; it takes a date such as 2022-09-01".to_owned()),
    }
}

fn datetime(value: &DeValue, example: &str) -> Meaning<Datetime> {
    let wanted = || is_a(value, &format!("a date without quotation marks, such as {example}"));
    value.as_datetime().copied().ok_or_else(wanted)
}

fn civil(date: toml::value::Date) -> Option<Date> {
    Date::new(i16::try_from(date.year).ok()?, i8::try_from(date.month).ok()?, i8::try_from(date.day).ok()?).ok()
}
