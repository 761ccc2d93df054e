//! What `explain` and `orders` say to a person, from the JSON that `--json` prints.

use serde_json::Value;

/// An explanation, a line for each thing that there is to say.
pub(crate) fn explanation(told: &Value) -> String {
    let mut lines = vec![("name", cell(&told["name"])), ("type", cell(&told["type"])), ("client", client(told))];
    let verdict = [cell(&told["verdict"]), effect(&told["effect"])];
    lines.push(("verdict", verdict.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", ")));
    lines.push(("by", rule(&told["by"])));
    lines.push(("through", cell(&told["through"])));
    lines.push(("exemption", cell(&told["exemption"])));
    lines.extend(items(&told["also"]).map(|also| ("also", format!("{}: {}", rule(also), cell(&also["why"])))));
    lines.push(("note", cell(&told["note"])));
    let shown = lines.into_iter().filter(|(_, what)| !what.is_empty());
    shown.map(|(name, what)| format!("{name:<10} {what}\n")).collect()
}

/// How many columns the orders have.
const COLUMNS: usize = 9;

/// Every order, a line each; below it, what of its deadlines is missed, and why its file as it is now does not count.
pub(crate) fn orders(told: &Value) -> String {
    let heads = ["STATE", "ID", "JURISDICTION", "TARGETS", "DUE", "LEFT", "APPROVALS", "EFFECTIVE SINCE", "ISSUER"];
    let mut rows = vec![heads.map(str::to_owned)];
    rows.extend(items(told).map(|order| {
        let jurisdiction = items(&order["jurisdiction"]).map(cell).collect::<Vec<_>>().join(" ");
        let [state, id, targets, due, issuer] =
            ["state", "id", "targets", "due", "issuer"].map(|key| or_dash(cell(&order[key])));
        let left = or_dash(order["seconds-left"].as_i64().map(span).unwrap_or_default());
        let [have, need] = ["have", "need"].map(|key| cell(&order["approvals"][key]));
        let approvals = if need.is_empty() { "-".to_owned() } else { format!("{have} of {need}") };
        [state, id, or_dash(jurisdiction), targets, due, left, approvals, or_dash(since(order)), issuer]
    }));
    let widths: [usize; COLUMNS] =
        std::array::from_fn(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0));
    let mut shown = line(&rows[0], &widths);
    for (row, order) in rows[1..].iter().zip(items(told)) {
        shown += &line(row, &widths);
        if order["overdue"] == true {
            shown += "  overdue: a deadline is past, and what it is for is not carried out\n";
        }
        let held = if order["state"] == "pending" { "its last good copy stands; " } else { "" };
        shown.extend(items(&order["pending"]).map(|mistake| format!("  {held}pending: {}\n", cell(mistake))));
    }
    if rows.len() == 1 { "no orders\n".to_owned() } else { shown }
}

/// From when an order is carried out here; of one that is not yet, from when it will be.
fn since(order: &Value) -> String {
    let [since, date] = ["effective-since", "effective"].map(|key| cell(&order[key]));
    match (since.is_empty(), order["state"] == "in-force") {
        (false, _) => whole_seconds(&since),
        // No server runs, or it has only begun.
        (true, true) if date.is_empty() => "at once".to_owned(),
        (true, _) => date,
    }
}

/// A moment without its fraction of a second.
fn whole_seconds(moment: &str) -> String {
    match moment.split_once('.') {
        Some((seconds, _)) => format!("{seconds}Z"),
        None => moment.to_owned(),
    }
}

/// Seconds in the two largest units that say something: `29d 23h`, `-15s`.
fn span(seconds: i64) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")];
    let sign = if seconds < 0 { "-" } else { "" };
    let mut rest = seconds.unsigned_abs();
    let first = UNITS.iter().position(|(unit, _)| rest >= *unit).unwrap_or(UNITS.len() - 1);
    let parts = UNITS.iter().skip(first).take(2).map(|(unit, letter)| {
        let count = rest / unit;
        rest %= unit;
        (count, *letter)
    });
    let mut shown: Vec<_> = parts.collect();
    shown.retain(|(count, _)| *count > 0 || seconds == 0);
    format!("{sign}{}", shown.iter().map(|(count, letter)| format!("{count}{letter}")).collect::<Vec<_>>().join(" "))
}

fn line(row: &[String; COLUMNS], widths: &[usize; COLUMNS]) -> String {
    let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
    format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
}

fn client(told: &Value) -> String {
    let known = |value: String, otherwise: &str| if value.is_empty() { otherwise.to_owned() } else { value };
    let client = known(cell(&told["client"]), "nobody in particular");
    let country = known(cell(&told["country"]), "country unknown");
    match cell(&told["ground"]).as_str() {
        "unknown" => format!("{client}, {country}"),
        ground => format!("{client}, {country} ({ground})"),
    }
}

/// `nxdomain`, or the addresses.
fn effect(effect: &Value) -> String {
    let addresses = ["a", "aaaa"].map(|key| cell(&effect[key])).into_iter().filter(|address| !address.is_empty());
    if effect.is_object() { addresses.collect::<Vec<_>>().join(" and ") } else { cell(effect) }
}

fn rule(by: &Value) -> String {
    if !by.is_object() {
        return String::new();
    }
    let [kind, id, file, line] = ["kind", "id", "file", "line"].map(|key| cell(&by[key]));
    format!("{kind} {id}, {file}:{line}")
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn or_dash(cell: String) -> String {
    if cell.is_empty() { "-".to_owned() } else { cell }
}

/// A value as it is shown, without what a terminal would obey; empty for null.
fn cell(value: &Value) -> String {
    let text = match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    text.replace(char::is_control, "\u{fffd}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_block_is_explained_in_lines() {
        let rule = json!({ "kind": "order", "id": "it-milan", "file": "config/orders/it.toml", "line": 12 });
        let told = json!({
            "name": "a.example", "type": "A", "client": "127.0.0.2", "country": "IT", "ground": "network 127.0.0.2/32",
            "verdict": "block", "effect": "nxdomain", "by": rule, "through": null, "exemption": null, "note": null,
            "also": [{ "kind": "list", "id": "malware", "file": "m.txt", "line": 7, "why": "an order decides first" }],
        });
        assert_eq!(
            explanation(&told),
            "name       a.example\n\
             type       A\n\
             client     127.0.0.2, IT (network 127.0.0.2/32)\n\
             verdict    block, nxdomain\n\
             by         order it-milan, config/orders/it.toml:12\n\
             also       list malware, m.txt:7: an order decides first\n"
        );
    }

    #[test]
    fn what_is_forwarded_has_no_effect() {
        let told = json!({ "name": "a", "type": "A", "client": null, "country": null, "ground": "unknown",
            "verdict": "forward", "effect": null, "by": null, "exemption": "a", "also": [] });
        assert!(
            explanation(&told)
                .contains("client     nobody in particular, country unknown\nverdict    forward\nexemption  a\n")
        );
        assert_eq!(effect(&json!({ "a": "192.0.2.1", "aaaa": "::1" })), "192.0.2.1 and ::1");
    }

    #[test]
    fn orders_stand_in_columns() {
        let order = |id: &str, state: &str, pending: &[&str]| {
            json!({ "id": id, "issuer": "Tribunale\u{1b}[2J", "state": state, "jurisdiction": ["IT", "SM"],
                "targets": 3, "received": "2022-07-18T07:00:00Z", "due": null, "effective": null, "pending": pending })
        };
        let mut due = order("c", "draft", &["c.toml: has 1 of 2 approvals (anna); sign it"]);
        due["approvals"] = json!({ "have": 1, "need": 2, "by": ["anna"] });
        due["seconds-left"] = json!(-90);
        due["overdue"] = json!(true);
        assert_eq!(
            orders(&json!([order("it-milan", "in-force", &[]), order("b", "pending", &["b.toml:1:1: no id"]), due])),
            "STATE     ID        JURISDICTION  TARGETS  DUE  LEFT     APPROVALS  EFFECTIVE SINCE  ISSUER\n\
             in-force  it-milan  IT SM         3        -    -        -          at once          Tribunale\u{fffd}[2J\n\
             pending   b         IT SM         3        -    -        -          -                Tribunale\u{fffd}[2J\n\
             \u{20} its last good copy stands; pending: b.toml:1:1: no id\n\
             draft     c         IT SM         3        -    -1m 30s  1 of 2     -                Tribunale\u{fffd}[2J\n\
             \u{20} overdue: a deadline is past, and what it is for is not carried out\n\
             \u{20} pending: c.toml: has 1 of 2 approvals (anna); sign it\n"
        );
        assert_eq!(orders(&json!([])), "no orders\n");
    }

    #[test]
    fn a_moment_is_shown_to_the_second() {
        let since = json!({ "state": "in-force", "effective-since": "2026-11-22T04:47:38.889908398Z" });
        assert_eq!(super::since(&since), "2026-11-22T04:47:38Z");
        assert_eq!(whole_seconds("2026-11-22T04:47:38Z"), "2026-11-22T04:47:38Z");
    }

    #[test]
    fn time_is_told_in_two_units() {
        for (seconds, shown) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (-61, "-1m 1s"),
            (3_600, "1h"),
            (86_399, "23h 59m"),
            (2_592_000, "30d"),
            (2_591_999, "29d 23h"),
            (i64::MIN, "-106751991167300d 15h"),
        ] {
            assert_eq!(span(seconds), shown);
        }
    }
}
