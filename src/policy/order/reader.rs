//! Reads the values of an order file, and gathers what is wrong with them.

use std::ops::Range;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::mistake::{Lines, MISTAKES_MAX, Mistake};

/// The characters of a value that a mistake repeats.
const QUOTED_CHARS_MAX: usize = 60;

/// A value as it was written, and where.
pub(super) type Item<'t> = Spanned<DeValue<'t>>;

/// What a value means, or what is wrong with it: words that follow the key in a mistake.
pub(super) type Meaning<T> = Result<T, String>;

/// The file being read, and the mistakes found so far.
pub(super) struct Reader<'t> {
    pub(super) file: &'t Path,
    text: &'t str,
    lines: Lines,
    pub(super) mistakes: Vec<Mistake>,
    /// Mistakes beyond [`MISTAKES_MAX`].
    more: usize,
}

impl<'t> Reader<'t> {
    pub(super) fn new(file: &'t Path, text: &'t str) -> Self {
        Self { file, text, lines: Lines::of(text), mistakes: Vec::new(), more: 0 }
    }

    pub(super) fn mistake(&mut self, span: Range<usize>, what: impl Into<String>) {
        if self.mistakes.len() < MISTAKES_MAX {
            self.mistakes.push(Mistake::at(self.file, self.text, span, what));
        } else {
            self.more += 1;
        }
    }

    /// The mistakes in the order of the file.
    pub(super) fn into_mistakes(mut self) -> Vec<Mistake> {
        self.mistakes.sort_by_key(|mistake| (mistake.line, mistake.column));
        if self.more > 0 {
            self.mistakes.push(Mistake::of_file(self.file, format!("and {} more mistakes", self.more)));
        }
        self.mistakes
    }

    /// The line of an octet, from 1.
    pub(super) fn line(&self, at: usize) -> u32 {
        self.lines.line(at)
    }

    /// Reads the value of a key that must be there.
    pub(super) fn required<T>(
        &mut self,
        item: Option<Item>,
        key: &str,
        example: &str,
        meaning: fn(&DeValue) -> Meaning<T>,
    ) -> Option<T> {
        if item.is_none() {
            self.missing(key, example);
        }
        self.optional(item, key, meaning)
    }

    pub(super) fn missing(&mut self, key: &str, example: &str) {
        self.mistake(0..0, format!("`{key}` is missing; add a line such as {key} = {example}"));
    }

    /// Reads the value of a key that may be there.
    pub(super) fn optional<T>(
        &mut self,
        item: Option<Item>,
        key: &str,
        meaning: fn(&DeValue) -> Meaning<T>,
    ) -> Option<T> {
        let item = item?;
        meaning(item.get_ref()).map_err(|what| self.mistake(item.span(), format!("`{key}` {what}"))).ok()
    }

    /// The elements of an array; a mistake and none where it is something else.
    pub(super) fn array<'i>(&mut self, item: Item<'i>, key: &str, wanted: &str) -> Option<Vec<Item<'i>>> {
        let at = item.span();
        match item.into_inner() {
            DeValue::Array(elements) => Some(elements.into_iter().collect()),
            other => {
                self.mistake(at, format!("`{key}` {}", is_a(&other, wanted)));
                None
            }
        }
    }

    /// Reads the value of a key that must be there in a part of an order: its name, and where it is.
    pub(super) fn part<T>(
        &mut self,
        item: Option<Item>,
        (part, at): (&str, &Range<usize>),
        key: &str,
        example: &str,
        meaning: fn(&DeValue) -> Meaning<T>,
    ) -> Option<T> {
        if item.is_none() {
            self.mistake(at.clone(), format!("`{part}` has no `{key}`; give it one such as {key} = {example}"));
        }
        self.optional(item, key, meaning)
    }

    /// What the elements of an array mean, each with its line; each mistake at its own place.
    pub(super) fn each<T>(
        &mut self,
        item: Option<Item>,
        key: &str,
        wanted: &str,
        meaning: impl Fn(&DeValue) -> Meaning<T>,
    ) -> Vec<(T, u32)> {
        let Some(item) = item else { return Vec::new() };
        let at = item.span();
        let Some(elements) = self.array(item, key, wanted) else { return Vec::new() };
        if elements.is_empty() {
            self.mistake(at, format!("`{key}` is empty; it takes {wanted}, or take the line out"));
        }
        let mut meant = Vec::with_capacity(elements.len());
        for element in elements {
            match meaning(element.get_ref()) {
                Ok(value) => meant.push((value, self.line(element.span().start))),
                Err(what) => self.mistake(element.span(), what),
            }
        }
        meant
    }

    /// The tables of `[[key]]`, each with its place.
    pub(super) fn tables<'i>(&mut self, item: Item<'i>, key: &str) -> Option<Vec<(DeTable<'i>, Range<usize>)>> {
        let at = item.span();
        if item.get_ref().is_table() {
            self.mistake(at, format!("`{key}` is one table; write [[{key}]], in double brackets"));
            return None;
        }
        let elements = self.array(item, key, &format!("[[{key}]] tables"))?;
        if elements.is_empty() {
            self.mistake(
                at,
                format!("`{key}` is empty; write [[{key}]] with what is in it below, or take the line out"),
            );
        }
        let mut tables = Vec::with_capacity(elements.len());
        for element in elements {
            let at = element.span();
            match element.into_inner() {
                DeValue::Table(keys) => tables.push((keys, at)),
                _ => self.mistake(
                    at,
                    format!("`{key}` holds something else than a table; write [[{key}]], in double brackets"),
                ),
            }
        }
        Some(tables)
    }

    /// Makes a mistake of each key that is left in a table.
    pub(super) fn refuse(&mut self, keys: DeTable, whose: &str, known: &str) {
        for key in keys.into_iter().map(|(key, _)| key) {
            self.mistake(key.span(), format!("unknown key {}; {whose} {known}", quoted(key.get_ref())));
        }
    }
}

pub(super) fn string<'v>(value: &'v DeValue) -> Meaning<&'v str> {
    value.as_str().ok_or_else(|| is_a(value, "a string in quotation marks"))
}

/// `is an integer; it takes …`.
pub(super) fn is_a(value: &DeValue, wanted: &str) -> String {
    let article = if value.type_str().starts_with(['a', 'i']) { "an" } else { "a" };
    format!("is {article} {}; it takes {wanted}", value.type_str().replace("datetime", "date or time"))
}

/// A value as a mistake repeats it: short, and harmless to the terminal that shows it.
pub(super) fn quoted(text: &str) -> String {
    let start: String = text.chars().take(QUOTED_CHARS_MAX).collect();
    let more = if start.len() < text.len() { "…" } else { "" };
    let shown: String =
        start.chars().map(|c| if is_control(c) { c.escape_unicode().to_string() } else { c.to_string() }).collect();
    format!("\"{shown}{more}\"")
}

/// Control characters, line and paragraph separators, and the marks that make text read other than it is written
/// (UAX #9's embeddings, overrides and isolates).
pub(super) fn is_control(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}
