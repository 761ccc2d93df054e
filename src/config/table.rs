//! A TOML table read key by key, mistakes gathered with their places.

use std::cell::{Cell, RefCell};
use std::fmt::Display;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;
use toml::Spanned;
use toml::de::{DeTable, DeValue};
use toml::value::Datetime;

use crate::dns::Name;
use crate::mistake::{Lines, MISTAKES_MAX, Mistake};

/// Mistakes in one file, as they are found.
#[derive(Debug)]
pub(super) struct Mistakes<'f> {
    file: &'f Path,
    source: &'f str,
    lines: Lines,
    found: RefCell<Vec<(usize, Mistake)>>,
    /// Mistakes beyond [`MISTAKES_MAX`].
    more: Cell<usize>,
}

impl<'f> Mistakes<'f> {
    pub(super) fn new(file: &'f Path, source: &'f str) -> Self {
        Self { file, source, lines: Lines::of(source), found: RefCell::default(), more: Cell::default() }
    }

    /// Notes a mistake at octets `span`.
    pub(super) fn add(&self, span: Range<usize>, what: impl Into<String>) {
        let mut found = self.found.borrow_mut();
        if found.len() < MISTAKES_MAX {
            found.push((span.start, Mistake::at(self.file, self.source, span, what)));
        } else {
            self.more.set(self.more.get() + 1);
        }
    }

    /// The file and the line of octets `span`.
    pub(super) fn place(&self, span: Range<usize>) -> (PathBuf, u32) {
        (self.file.to_owned(), self.lines.line(span.start))
    }

    /// All of them, from the top of the file down; Ok where there are none.
    pub(super) fn none(self) -> Result<(), Vec<Mistake>> {
        let mut found = self.found.into_inner();
        found.sort_by_key(|(start, _)| *start);
        if found.is_empty() {
            return Ok(());
        }
        let mut mistakes: Vec<_> = found.into_iter().map(|(_, mistake)| mistake).collect();
        let more = self.more.get();
        if more > 0 {
            mistakes.push(Mistake::of_file(self.file, format!("and {more} more mistakes")));
        }
        Err(mistakes)
    }
}

/// What a value may be, both ends included, and what it is where it is left out.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds<T> {
    pub(super) default: T,
    pub(super) min: T,
    pub(super) max: T,
}

impl<T: PartialOrd> Bounds<T> {
    /// The value, where it lies within; otherwise what to say.
    fn check(&self, value: T, show: impl Fn(&T) -> String) -> Result<T, String> {
        if value >= self.min && value <= self.max {
            return Ok(value);
        }
        Err(format!("{} is out of bounds; it takes {} to {}", show(&value), show(&self.min), show(&self.max)))
    }
}

/// A table being read. Each key asked for is a key it may have; [`Table::finish`] refuses all others.
#[derive(Debug)]
pub(super) struct Table<'a> {
    /// What it is called in mistakes: `[listen]`.
    shown: &'static str,
    span: Range<usize>,
    /// None: it is left out.
    table: Option<&'a DeTable<'a>>,
    /// Keys asked for.
    known: Vec<&'static str>,
    /// Keys refused on their own.
    planned: Vec<&'static str>,
    mistakes: &'a Mistakes<'a>,
}

impl<'a> Table<'a> {
    /// Reads the file itself.
    pub(super) fn root<T>(
        table: &'a Spanned<DeTable<'a>>,
        mistakes: &'a Mistakes<'a>,
        read: impl FnOnce(&mut Self) -> T,
    ) -> T {
        Self::new("the file", 0..0, Some(table.get_ref()), mistakes).read(read)
    }

    fn new(
        shown: &'static str,
        span: Range<usize>,
        table: Option<&'a DeTable<'a>>,
        mistakes: &'a Mistakes<'a>,
    ) -> Self {
        Self { shown, span, table, known: Vec::new(), planned: Vec::new(), mistakes }
    }

    fn read<T>(mut self, read: impl FnOnce(&mut Self) -> T) -> T {
        let value = read(&mut self);
        self.finish();
        value
    }

    /// Reads a table inside this one, `shown` in mistakes; one that is left out is read as an empty one.
    pub(super) fn table<T>(&mut self, key: &'static str, shown: &'static str, read: impl Fn(&mut Self) -> T) -> T {
        let value = self.take(key).and_then(|value| value.table(shown, &read));
        value.unwrap_or_else(|| Self::new(shown, 0..0, None, self.mistakes).read(read))
    }

    /// The value of `key`, where there is one.
    fn take(&mut self, key: &'static str) -> Option<Value<'a>> {
        self.known.push(key);
        let value = self.table?.get(key)?;
        Some(Value { key, value, mistakes: self.mistakes })
    }

    /// Reads the value of `key`; None where it is left out or mistaken.
    pub(super) fn optional<T>(&mut self, key: &'static str, read: impl FnOnce(Value<'a>) -> Option<T>) -> Option<T> {
        self.take(key).and_then(read)
    }

    /// Reads the value of `key`, which has to be there.
    pub(super) fn required<T>(&mut self, key: &'static str, read: impl FnOnce(Value<'a>) -> Option<T>) -> Option<T> {
        let value = self.take(key);
        if value.is_none() {
            self.refuse(format_args!("no `{key}`; add it"));
        }
        value.and_then(read)
    }

    /// Reads the value of `key`, which is a duration such as `"5s"`.
    pub(super) fn duration(&mut self, key: &'static str, bounds: Bounds<Duration>) -> Duration {
        self.optional(key, |value| value.duration(bounds)).unwrap_or(bounds.default)
    }

    /// Reads the value of `key`, which is a duration of whole seconds.
    pub(super) fn seconds(&mut self, key: &'static str, bounds: Bounds<Duration>) -> Duration {
        let read = |value: Value<'a>| {
            let duration = value.duration(bounds)?;
            let whole = duration.subsec_nanos() == 0;
            if whole { Some(duration) } else { value.refuse("TTLs are whole seconds; round it") }
        };
        self.optional(key, read).unwrap_or(bounds.default)
    }

    /// Reads the value of `key`, which is a number of octets such as `"64MiB"`.
    pub(super) fn octets(&mut self, key: &'static str, bounds: Bounds<u64>) -> u64 {
        self.optional(key, |value| value.octets(bounds)).unwrap_or(bounds.default)
    }

    /// Reads the value of `key`, which is a whole number.
    pub(super) fn number(&mut self, key: &'static str, bounds: Bounds<u32>) -> u32 {
        self.optional(key, |value| value.number(bounds)).unwrap_or(bounds.default)
    }

    /// Reads the value of `key`, which is how many of something there may be.
    pub(super) fn count(&mut self, key: &'static str, bounds: Bounds<u32>) -> usize {
        self.number(key, bounds) as usize
    }

    /// Reads the value of `key`, which is true or false.
    pub(super) fn boolean(&mut self, key: &'static str, default: bool) -> bool {
        self.optional(key, Value::boolean).unwrap_or(default)
    }

    /// Notes a mistake about the table as a whole.
    pub(super) fn refuse(&self, what: impl Display) {
        self.mistakes.add(self.span.clone(), format!("{}: {what}", self.shown));
    }

    /// Refuses a key that is planned, and that this build does not have.
    pub(super) fn not_yet(&mut self, key: &'static str, instead: &str) {
        self.planned.push(key);
        if let Some((key, _)) = self.table.and_then(|table| table.get_key_value(key)) {
            let name = key.get_ref();
            self.mistakes.add(key.span(), format!("`{name}` is not supported yet; {instead}"));
        }
    }

    /// Whether it has any of these keys.
    pub(super) fn has_any(&self, keys: &[&str]) -> bool {
        self.table.is_some_and(|table| keys.iter().any(|key| table.contains_key(*key)))
    }

    /// Refuses every key that was not asked for.
    fn finish(&self) {
        for key in self.table.into_iter().flat_map(|table| table.keys()) {
            let name = key.get_ref().as_ref();
            if !self.known.contains(&name) && !self.planned.contains(&name) {
                let known = self.known.join(", ");
                self.mistakes.add(key.span(), format!("unknown key `{name}` in {}; it has {known}", self.shown));
            }
        }
    }
}

/// A value, and the key it was found under.
#[derive(Debug, Clone, Copy)]
pub(super) struct Value<'a> {
    key: &'static str,
    value: &'a Spanned<DeValue<'a>>,
    mistakes: &'a Mistakes<'a>,
}

impl<'a> Value<'a> {
    /// Notes a mistake here: what is wrong and, behind a semicolon, what to do.
    pub(super) fn refuse<T>(&self, what: impl Display) -> Option<T> {
        self.mistakes.add(self.value.span(), format!("{}: {what}", self.key));
        None
    }

    fn not_a<T>(&self, wanted: &str) -> Option<T> {
        self.refuse(format_args!("{} found; write {wanted}", self.value.get_ref().type_str()))
    }

    /// The file and line it stands on.
    pub(super) fn place(&self) -> (PathBuf, u32) {
        self.mistakes.place(self.value.span())
    }

    pub(super) fn is_text(&self) -> bool {
        self.value.get_ref().is_str()
    }

    pub(super) fn is_table(&self) -> bool {
        self.value.get_ref().is_table()
    }

    pub(super) fn text(self) -> Option<&'a str> {
        self.value.get_ref().as_str().or_else(|| self.not_a("text in quotes"))
    }

    /// Text that says something.
    pub(super) fn words(self) -> Option<String> {
        let text = self.text()?.trim();
        if text.is_empty() { self.refuse("nothing in it; fill it in or leave the key out") } else { Some(text.into()) }
    }

    /// A path, of which nothing is known but that there is one.
    pub(super) fn path(self) -> Option<PathBuf> {
        self.meaning(|text| if text.is_empty() { Err("no path in it; name a file or folder") } else { Ok(text.into()) })
    }

    /// A domain name below the root.
    pub(super) fn name(self) -> Option<Name> {
        self.meaning(|text| match Name::from_text(text) {
            Ok(name) if name == Name::root() => {
                Err("this is the root, which is every name; name what you mean".to_owned())
            }
            Ok(name) => Ok(name),
            Err(error) => Err(format!("{text:?}: {error}; write it as \"dns.example.net\"")),
        })
    }

    /// What the text means, by `read`, whose error says what is wrong and what to do.
    pub(super) fn meaning<T, E: Display>(self, read: impl FnOnce(&str) -> Result<T, E>) -> Option<T> {
        read(self.text()?).map_or_else(|what| self.refuse(what), Some)
    }

    /// One of these words.
    pub(super) fn choice<T: Copy>(self, choices: &[(&str, T)]) -> Option<T> {
        self.meaning(|text| {
            let words = || choices.iter().map(|(word, _)| format!("{word:?}")).collect::<Vec<_>>().join(" or ");
            let choice = choices.iter().find(|(word, _)| *word == text);
            choice.map(|(_, choice)| *choice).ok_or_else(|| format!("{text:?} is not known; write {}", words()))
        })
    }

    fn duration(self, bounds: Bounds<Duration>) -> Option<Duration> {
        self.meaning(|text| {
            let units = "write a number with its unit, such as \"500ms\", \"5s\" or \"1d\"";
            let duration =
                humantime::parse_duration(text).map_err(|_| format!("{text:?} is not a duration; {units}"))?;
            bounds.check(duration, |duration| humantime::format_duration(*duration).to_string())
        })
    }

    fn octets(self, bounds: Bounds<u64>) -> Option<u64> {
        self.meaning(|text| {
            let units = "write a number with its unit, such as \"64MiB\"";
            let size = ByteSize::from_str(text).map_err(|_| format!("{text:?} is not a size; {units}"))?;
            bounds.check(size.as_u64(), |octets| ByteSize(*octets).to_string().replace(' ', ""))
        })
    }

    pub(super) fn number(self, bounds: Bounds<u32>) -> Option<u32> {
        let Some(integer) = self.value.get_ref().as_integer() else { return self.not_a("a whole number") };
        let number = i128::from_str_radix(integer.as_str(), integer.radix()).unwrap_or(i128::MAX);
        let wide = |bound| i128::from(bound);
        let bounds = Bounds { default: wide(bounds.default), min: wide(bounds.min), max: wide(bounds.max) };
        let checked =
            bounds.check(number, |number| if *number == i128::MAX { integer.to_string() } else { number.to_string() });
        checked.map_or_else(|what| self.refuse(what), |number| u32::try_from(number).ok())
    }

    fn boolean(self) -> Option<bool> {
        self.value.get_ref().as_bool().or_else(|| self.not_a("true or false, without quotes"))
    }

    /// A date, or a date and a time.
    pub(super) fn date(self) -> Option<&'a Datetime> {
        self.value.get_ref().as_datetime().or_else(|| self.not_a("a date without quotes, such as 2027-01-31"))
    }

    /// The values of an array, where `read` takes them all. `read` gets those already taken too.
    pub(super) fn each<T>(self, read: impl Fn(Self, &[T]) -> Option<T>) -> Option<Vec<T>> {
        let Some(array) = self.value.get_ref().as_array() else { return self.not_a("a list in square brackets") };
        let mut taken = Vec::with_capacity(array.len());
        for value in array {
            taken.extend(read(Self { value, ..self }, &taken));
        }
        (taken.len() == array.len()).then_some(taken)
    }

    /// Reads a table, `shown` in mistakes.
    pub(super) fn table<T>(self, shown: &'static str, read: impl FnOnce(&mut Table<'a>) -> T) -> Option<T> {
        let Some(table) = self.value.get_ref().as_table() else { return self.not_a("a table") };
        Some(Table::new(shown, self.value.span(), Some(table), self.mistakes).read(read))
    }
}
