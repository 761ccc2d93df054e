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

/// Every order, a line each; below it, why its file as it is now does not count.
pub(crate) fn orders(told: &Value) -> String {
    let heads = ["STATE", "ID", "JURISDICTION", "TARGETS", "DUE", "EFFECTIVE", "ISSUER"];
    let mut rows = vec![heads.map(str::to_owned)];
    rows.extend(items(told).map(|order| {
        let jurisdiction = items(&order["jurisdiction"]).map(cell).collect::<Vec<_>>().join(" ");
        let [state, id, targets, due, effective, issuer] =
            ["state", "id", "targets", "due", "effective", "issuer"].map(|key| or_dash(cell(&order[key])));
        // Without a date an order is carried out as soon as it is loaded.
        let effective = if state == "in-force" && effective == "-" { "at once".to_owned() } else { effective };
        [state, id, or_dash(jurisdiction), targets, due, effective, issuer]
    }));
    let widths: [usize; 7] =
        std::array::from_fn(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0));
    let mut shown = line(&rows[0], &widths);
    for (row, order) in rows[1..].iter().zip(items(told)) {
        shown += &line(row, &widths);
        shown.extend(
            items(&order["pending"])
                .map(|mistake| format!("  its last good copy is in force; pending: {}\n", cell(mistake))),
        );
    }
    if rows.len() == 1 { "no orders\n".to_owned() } else { shown }
}

fn line(row: &[String; 7], widths: &[usize; 7]) -> String {
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
        let order = |id: &str, pending: &[&str]| {
            json!({ "id": id, "issuer": "Tribunale\u{1b}[2J", "state": "in-force", "jurisdiction": ["IT", "SM"],
                "targets": 3, "received": "2022-07-18T07:00:00Z", "due": null, "effective": null, "pending": pending })
        };
        assert_eq!(
            orders(&json!([order("it-milan", &[]), order("b", &["b.toml:1:1: no id"])])),
            "STATE     ID        JURISDICTION  TARGETS  DUE  EFFECTIVE  ISSUER\n\
             in-force  it-milan  IT SM         3        -    at once    Tribunale\u{fffd}[2J\n\
             in-force  b         IT SM         3        -    at once    Tribunale\u{fffd}[2J\n\
             \u{20} its last good copy is in force; pending: b.toml:1:1: no id\n"
        );
        assert_eq!(orders(&json!([])), "no orders\n");
    }
}
