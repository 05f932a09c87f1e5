//! The typed tables of `crates/ovsdb`: vendored `.ovsschema` in, Rust out.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Map, Value};

/// Schema file and module of each database.
const DATABASES: [(&str, &str, &str); 3] = [
    ("ovn-nb.ovsschema", "nb", "ovn-nb(5)"),
    ("ovn-sb.ovsschema", "sb", "ovn-sb(5)"),
    ("vswitch.ovsschema", "vswitch", "ovs-vswitchd.conf.db(5)"),
];

/// Words that cannot be a method of a row: Rust's own, and methods that every row has.
const TAKEN: [&str; 12] = [
    "all",
    "find",
    "in",
    "into_columns",
    "match",
    "mod",
    "new",
    "of",
    "ref",
    "row",
    "type",
    "uuid",
];

/// Writes `crates/ovsdb/src/generated/*.rs`, or with `check` fails if they are not what would be written.
pub fn generate(root: &Path, check: bool) -> Result<()> {
    let crate_dir = root.join("crates/ovsdb");
    let mut stale = Vec::new();
    for (file, module, manual) in DATABASES {
        let path = crate_dir.join("schemas").join(file);
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("failed to read {}", path.display()))?;
        let schema: Value =
            serde_json::from_str(&text).with_context(|| format!("failed to parse {file}"))?;
        let code = formatted(&module_of(&schema, file, manual)?, root)?;
        let target = crate_dir.join("src/generated").join(format!("{module}.rs"));
        write_if_changed(&target, &code, check, &mut stale)?;
    }
    ensure!(
        stale.is_empty(),
        "stale, run `cargo xtask generate-ovsdb`: {stale:?}"
    );
    Ok(())
}

fn write_if_changed(
    target: &Path,
    code: &str,
    check: bool,
    stale: &mut Vec<PathBuf>,
) -> Result<()> {
    if std::fs::read_to_string(target).is_ok_and(|present| present == code) {
        return Ok(());
    }
    if check {
        stale.push(target.to_owned());
        return Ok(());
    }
    std::fs::write(target, code).with_context(|| format!("failed to write {}", target.display()))
}

fn module_of(schema: &Value, file: &str, manual: &str) -> Result<String> {
    let (name, version) = (text(schema, "name")?, text(schema, "version")?);
    let mut code = String::new();
    writeln!(
        code,
        "//! Tables of database `{name}`, {manual}, schema version {version}."
    )?;
    writeln!(code, "//!")?;
    writeln!(
        code,
        "//! Generated from `schemas/{file}` by `cargo xtask generate-ovsdb`; do not edit."
    )?;
    writeln!(
        code,
        "\nuse std::sync::{{Arc, LazyLock}};\n\nuse uuid::Uuid;\n"
    )?;
    writeln!(
        code,
        "use crate::schema::Schema;\nuse crate::typed::{{Str, enumeration, table}};\n"
    )?;
    writeln!(
        code,
        "/// Name of the database.\npub const DATABASE: &str = {name:?};\n"
    )?;
    writeln!(
        code,
        "/// The vendored schema. The connected server's own may have more or less."
    )?;
    writeln!(code, "pub fn schema() -> &'static Arc<Schema> {{")?;
    writeln!(code, "static SCHEMA: LazyLock<Arc<Schema>> =")?;
    writeln!(
        code,
        "LazyLock::new(|| Schema::vendored(include_str!(\"../../schemas/{file}\")));\n&SCHEMA\n}}"
    )?;
    for (table, schema) in object(schema, "tables")? {
        table_of(&mut code, table, schema)
            .with_context(|| format!("failed to generate table {table}"))?;
    }
    Ok(code)
}

fn table_of(code: &mut String, table: &str, schema: &Value) -> Result<()> {
    let name = camel(table);
    let columns: BTreeMap<_, _> = object(schema, "columns")?.iter().collect();
    let mut lines = String::new();
    for (column, schema) in columns {
        let column_type = &schema["type"];
        let kind = Kind::of(column_type, &name, column)?;
        for (enumeration, members) in &kind.enumerations {
            enumeration_of(code, enumeration, members, table, column)?;
        }
        let method = if TAKEN.contains(&column.as_str()) {
            format!("{column}_")
        } else {
            column.clone()
        };
        writeln!(lines, "    /// {}", describe(column, column_type)?)?;
        let constant = match column.as_str() {
            "columns" | "table" => format!("{}_COLUMN", column.to_uppercase()),
            _ => column.to_uppercase(),
        };
        writeln!(
            lines,
            "    {method} {constant} {column:?} {};",
            kind.written
        )?;
    }
    let root = match schema["isRoot"].as_bool() {
        Some(true) => "a root: rows stay until they are deleted",
        _ => "no root: a row goes when its last strong reference goes",
    };
    writeln!(
        code,
        "\ntable! {{\n    /// Table `{table}`, {root}.\n    {name}, {name}Row, {table:?};\n{lines}}}"
    )?;
    Ok(())
}

fn enumeration_of(
    code: &mut String,
    name: &str,
    members: &[String],
    table: &str,
    column: &str,
) -> Result<()> {
    let members: Vec<String> = members
        .iter()
        .map(|member| format!("{} = {member:?}", camel(member)))
        .collect();
    writeln!(
        code,
        "\nenumeration! {{\n    /// Values of `{table}` column `{column}`."
    )?;
    let line = format!("    {name} {{ {}, }}", members.join(", "));
    if line.len() <= 100 {
        writeln!(code, "{line}\n}}")?;
    } else {
        writeln!(
            code,
            "    {name} {{\n        {},\n    }}\n}}",
            members.join(",\n        ")
        )?;
    }
    Ok(())
}

/// How the macros write a column's type.
struct Kind {
    written: String,
    enumerations: Vec<(String, Vec<String>)>,
}

impl Kind {
    fn of(column_type: &Value, table: &str, column: &str) -> Result<Kind> {
        let mut enumerations = Vec::new();
        let mut element = |base: &Value| -> Result<String> {
            let members = enumerated(base);
            if members.is_empty() {
                return Ok(rust_type(base_kind(base)?)?.to_owned());
            }
            let name = format!("{table}{}", camel(column));
            enumerations.push((name.clone(), members));
            Ok(name)
        };
        let key = match column_type.get("key") {
            Some(key) => element(key)?,
            None => element(column_type)?,
        };
        let value = column_type.get("value").map(&mut element).transpose()?;
        let least = column_type.get("min").and_then(Value::as_u64).unwrap_or(1);
        let single = column_type
            .get("max")
            .is_none_or(|max| max.as_u64() == Some(1));
        let written = match (value, single, least) {
            (Some(value), _, _) => format!("map ({key}, {value})"),
            (None, true, 0) => format!("optional ({key})"),
            (None, true, _) if enumerations.is_empty() => format!("one ({key})"),
            (None, true, _) => format!("choice ({key})"),
            (None, false, _) => format!("set ({key})"),
        };
        Ok(Kind {
            written,
            enumerations,
        })
    }
}

/// The members of a base type's enumeration; empty if it has none.
fn enumerated(base: &Value) -> Vec<String> {
    match &base["enum"] {
        Value::String(only) => vec![only.clone()],
        Value::Array(set) => {
            set.get(1)
                .and_then(Value::as_array)
                .map_or_else(Vec::new, |members| {
                    members
                        .iter()
                        .filter_map(Value::as_str)
                        .map(str::to_owned)
                        .collect()
                })
        }
        _ => Vec::new(),
    }
}

fn base_kind(base: &Value) -> Result<&str> {
    base.as_str()
        .or_else(|| base["type"].as_str())
        .with_context(|| format!("{base} is no base type"))
}

fn rust_type(kind: &str) -> Result<&'static str> {
    Ok(match kind {
        "integer" => "i64",
        "real" => "f64",
        "boolean" => "bool",
        "string" => "Str",
        "uuid" => "Uuid",
        _ => bail!("unknown kind {kind}"),
    })
}

/// One line about a column: kinds, references, ranges, number of members.
fn describe(column: &str, column_type: &Value) -> Result<String> {
    let key = describe_base(column_type.get("key").unwrap_or(column_type))?;
    let (least, greatest) = (
        column_type["min"].as_u64().unwrap_or(1),
        &column_type["max"],
    );
    let what = match column_type.get("value") {
        Some(value) => format!("map of {key} to {}", describe_base(value)?),
        None => key,
    };
    let number = match (least, greatest.as_u64(), greatest.as_str()) {
        (1, None | Some(1), None) => String::new(),
        (0, None | Some(1), None) => ", optional".to_owned(),
        (_, Some(greatest), _) => format!(", {least} to {greatest}"),
        (0, ..) if column_type.get("value").is_some() => String::new(),
        (0, ..) => ", any number".to_owned(),
        _ => format!(", at least {least}"),
    };
    Ok(format!("Column `{column}`: {what}{number}."))
}

fn describe_base(base: &Value) -> Result<String> {
    let mut line = base_kind(base)?.to_owned();
    if let Some(table) = base["refTable"].as_str() {
        let strength = base["refType"].as_str().unwrap_or("strong");
        write!(line, " of a row of `{table}` ({strength})")?;
    }
    let bound = |name: &str| base.get(name).map(Value::to_string).unwrap_or_default();
    for (least, greatest, of) in [
        ("minInteger", "maxInteger", ""),
        ("minLength", "maxLength", "length "),
    ] {
        if base.get(least).or(base.get(greatest)).is_some() {
            write!(line, " ({of}{}..={})", bound(least), bound(greatest))?;
        }
    }
    Ok(line.replace("..=)", "..)"))
}

/// `Logical_Switch` → `LogicalSwitch`, `allow-related` → `AllowRelated`, `ACL` → `Acl`.
fn camel(name: &str) -> String {
    let words = name.split(['_', '-']).flat_map(split_words);
    words
        .map(|word| word[..1].to_uppercase() + &word[1..].to_lowercase())
        .collect()
}

/// `AutoAttach` → `Auto`, `Attach`; `NetFlow`; `ACL` stays one word.
fn split_words(name: &str) -> Vec<&str> {
    let bytes = name.as_bytes();
    let starts = (1..bytes.len())
        .filter(|&at| bytes[at].is_ascii_uppercase() && bytes[at - 1].is_ascii_lowercase());
    let mut bounds = vec![0];
    bounds.extend(starts);
    bounds.push(bytes.len());
    bounds
        .windows(2)
        .map(|pair| &name[pair[0]..pair[1]])
        .filter(|word| !word.is_empty())
        .collect()
}

fn text<'a>(value: &'a Value, member: &str) -> Result<&'a str> {
    value[member]
        .as_str()
        .with_context(|| format!("the schema has no {member}"))
}

fn object<'a>(value: &'a Value, member: &str) -> Result<&'a Map<String, Value>> {
    value[member]
        .as_object()
        .with_context(|| format!("the schema has no {member}"))
}

/// The code as rustfmt with the house's configuration writes it.
fn formatted(code: &str, root: &Path) -> Result<String> {
    let mut child = Command::new("rustfmt")
        .args(["--edition", "2024", "--emit", "stdout"])
        .current_dir(root)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("failed to start rustfmt")?;
    let mut stdin = child.stdin.take().context("rustfmt has no stdin")?;
    stdin
        .write_all(code.as_bytes())
        .context("failed to write to rustfmt")?;
    drop(stdin);
    let output = child
        .wait_with_output()
        .context("failed to wait for rustfmt")?;
    ensure!(
        output.status.success(),
        "failed to format: rustfmt ended with {}",
        output.status
    );
    String::from_utf8(output.stdout).context("rustfmt wrote no UTF-8")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert_eq!(camel("Logical_Switch"), "LogicalSwitch");
        assert_eq!(camel("ACL"), "Acl");
        assert_eq!(camel("Open_vSwitch"), "OpenVSwitch");
        assert_eq!(camel("allow-related"), "AllowRelated");
        assert_eq!(camel("AutoAttach"), "AutoAttach");
    }

    #[test]
    fn columns_read_well() {
        let column = serde_json::json!({"key": {"type": "integer", "minInteger": 1, "maxInteger": 9}, "min": 0});
        assert_eq!(
            describe("tag", &column).unwrap(),
            "Column `tag`: integer (1..=9), optional."
        );
        assert_eq!(
            Kind::of(&column, "T", "tag").unwrap().written,
            "optional (i64)"
        );
    }
}
