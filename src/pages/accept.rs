//! The field Accept of a request → the form that its client prefers (RFC 9110 §12.5.1).

/// A form that a page has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `text/html`, for people: what is sent where nothing is said, and where neither form is wanted.
    Html,
    /// `application/json`, for programs.
    Json,
}

/// How much a form is wanted: its quality in thousandths, then how exactly the range that gave it names the form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Weight {
    quality: u16,
    specificity: u8,
}

const NOT_WANTED: Weight = Weight { quality: 0, specificity: 0 };

/// The form that is wanted more, by all lines of the field. Of two forms wanted alike the one that is named goes before
/// one that only a wildcard means; else it is HTML. A range that cannot be read says nothing.
pub fn preferred<'v>(values: impl Iterator<Item = &'v str>) -> Form {
    let (mut html, mut json) = (NOT_WANTED, NOT_WANTED);
    for range in values.flat_map(|value| value.split(',')) {
        let Some((range, quality)) = weighted(range) else { continue };
        for (form, held) in [("text/html", &mut html), ("application/json", &mut json)] {
            let Some(specificity) = specificity(range, form) else { continue };
            // The most exact range counts, whatever a wider one says (RFC 9110 §12.5.1); of two alike, the kinder one.
            if (specificity, quality) > (held.specificity, held.quality) {
                *held = Weight { quality, specificity };
            }
        }
    }
    if json.quality > 0 && json > html { Form::Json } else { Form::Html }
}

/// A media range without its parameters, and its quality in thousandths.
fn weighted(range: &str) -> Option<(&str, u16)> {
    let mut parts = range.split(';').map(str::trim);
    let name = parts.next()?;
    let quality = parts.find_map(|part| {
        let (key, value) = part.split_once('=')?;
        key.trim_end().eq_ignore_ascii_case("q").then_some(value.trim_start())
    });
    Some((name, quality.map_or(Some(1000), thousandths)?))
}

/// `1`, `0.5`, `1.000`: RFC 9110 §12.4.2.
fn thousandths(text: &str) -> Option<u16> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.len() > 3 || !fraction.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let fraction: u16 = format!("{fraction:0<3}").parse().ok()?;
    match whole {
        "0" => Some(fraction),
        "1" if fraction == 0 => Some(1000),
        _ => None,
    }
}

/// How exactly a range means a media type: 3 by its name, 2 by `type/*`, 1 by `*/*`; None: not at all.
fn specificity(range: &str, form: &str) -> Option<u8> {
    let of_type = || {
        range
            .strip_suffix("/*")
            .is_some_and(|kind| form.split('/').next().is_some_and(|own| own.eq_ignore_ascii_case(kind)))
    };
    match range {
        _ if range.eq_ignore_ascii_case(form) => Some(3),
        "*/*" => Some(1),
        _ if of_type() => Some(2),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(accept: &str) -> Form {
        preferred(accept.split('|'))
    }

    #[test]
    fn what_is_wanted_more_is_sent() {
        for (accept, json) in [
            ("", false),
            ("*/*", false),
            ("application/json", true),
            ("Application/JSON;charset=utf-8", true),
            ("application/*", true),
            ("text/html,application/xhtml+xml,application/xml;q=0.9,image/webp,*/*;q=0.8", false),
            ("application/json, text/plain, */*", true),
            ("text/html, application/json", false),
            ("text/html;q=0.5, application/json;q=0.6", true),
            ("text/html;q=0.6, application/json;q=0.5", false),
            ("text/html ; q = 0.9 , application/json ; Q=1.000", true),
            ("*/*, text/html;q=0", true),
            ("text/*;q=0.9, */*;q=0.1, application/json;q=0.5", false),
            ("application/json;q=0", false),
            ("application/json;q=0, application/*", false),
            ("text/html;q=0, application/json;q=0", false),
            ("image/png", false),
            ("application/json;q=0.1|application/json;q=0.2|text/html;q=0.15", true),
        ] {
            assert_eq!(form(accept), if json { Form::Json } else { Form::Html }, "{accept}");
        }
    }

    #[test]
    fn a_range_that_cannot_be_read_says_nothing() {
        for quality in ["2", "1.001", "0.1234", "-1", ".5", "0,5", "q", "", "0.5x", "\u{661}"] {
            assert_eq!(form(&format!("application/json;q={quality}")), Form::Html, "{quality}");
        }
        for range in [
            "application",
            "application/",
            "/json",
            "application/json+x",
            "*",
            "*/json",
            ";q=1",
            ",,,",
            "application/json x",
        ] {
            assert_eq!(form(range), Form::Html, "{range}");
        }
        assert_eq!(form("application/json;q=1.;x"), Form::Json, "RFC 9110 allows a point alone");
    }

    #[test]
    fn a_field_cut_anywhere_is_read_as_far_as_it_goes() {
        let accept = "text/html;q=0.25, application/json;q=0.5";
        let json = accept.find("application/json").map_or(0, |at| at + "application/json".len());
        for cut in 0..=accept.len() {
            let behind = &accept[cut.min(json)..cut];
            // Without its quality it is wanted entirely; half a quality is none, and `q=0` is a word.
            let wanted = cut >= json && !matches!(behind, ";q=" | ";q=0" | ";q=0.");
            assert_eq!(form(&accept[..cut]), if wanted { Form::Json } else { Form::Html }, "cut at {cut}");
        }
    }
}
