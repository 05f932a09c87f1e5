//! What was measured, as a table in Markdown.

use std::collections::BTreeMap;
use std::time::Duration;

use super::matrix::{BOUND, Behind, Failure};
use super::watch::Cell;
use crate::server::Check;

/// Of one failure of one backend, as one kind of probe saw it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spell {
    /// From the failure until its NetworkProbe was Unhealthy; `None`: it was not.
    pub noticed: Option<Duration>,
    /// Until its endpoint was not ready.
    pub left: Option<Duration>,
    /// Until the last question began that it answered or nobody did.
    pub met: Duration,
    /// From the end of the failure until its endpoint was ready.
    pub back: Option<Duration>,
}

/// All spells.
#[derive(Debug, Default)]
pub struct Figures {
    spells: BTreeMap<(usize, Cell), Vec<Spell>>,
    /// In the order in which they were first seen.
    titles: Vec<&'static str>,
    /// Endpoints that left though nothing was wrong with them.
    pub strangers: Vec<String>,
}

impl Figures {
    pub fn add(&mut self, failure: Failure, cell: Cell, spell: Spell) {
        let title = failure.title();
        let known = self.titles.iter().position(|other| *other == title);
        let row = known.unwrap_or_else(|| {
            self.titles.push(title);
            self.titles.len() - 1
        });
        self.spells.entry((row, cell)).or_default().push(spell);
    }

    /// One line for each failure and kind of probe: for each kind of backend by when its endpoint had left and had returned, the
    /// worst of all rounds. What misses the bound is marked.
    pub fn table(&self) -> String {
        let mut text = String::from("| failure | probe |");
        for behind in Behind::ALL {
            text += &format!(" {} |", behind.kind());
        }
        text += " worst |\n|---|---|---|---|---|---|---|\n";
        for (row, title) in self.titles.iter().enumerate() {
            for check in Check::ALL {
                text += &self.line(row, title, check).unwrap_or_default();
            }
        }
        text += &format!(
            "\nSeconds from the failure until the endpoint had left / from its end until it had returned; at most {:.0}, what misses that is marked ✗.\n{}",
            BOUND.as_secs_f32(),
            self.summary()
        );
        text
    }

    fn line(&self, row: usize, title: &str, check: Check) -> Option<String> {
        let of = |behind| self.spells.get(&(row, (check, behind))).map(Vec::as_slice);
        let all: Vec<Spell> = Behind::ALL
            .into_iter()
            .filter_map(of)
            .flatten()
            .copied()
            .collect();
        if all.is_empty() {
            return None;
        }
        let mut text = format!("| {title} | {check} |");
        for behind in Behind::ALL {
            text += &of(behind).map_or_else(
                || " – |".to_owned(),
                |spells| format!(" {} |", both(spells)),
            );
        }
        Some(text + &format!(" {} |\n", both(&all)))
    }

    fn summary(&self) -> String {
        let all: Vec<Spell> = self.spells.values().flatten().copied().collect();
        let missed = |spell: &&Spell| misses(spell.left) || misses(spell.back);
        let mut text = format!(
            "Worst of {}: NetworkProbe Unhealthy {}, endpoint left {}, a client met it for the last time {}, endpoint returned {}. Misses: {}.\n",
            all.len(),
            shown(worst(&all, |spell| spell.noticed)),
            shown(worst(&all, |spell| spell.left)),
            shown(worst(&all, |spell| Some(spell.met))),
            shown(worst(&all, |spell| spell.back)),
            all.iter().filter(missed).count(),
        );
        for stranger in &self.strangers {
            text += &format!("✗ {stranger}\n");
        }
        text
    }
}

fn both(spells: &[Spell]) -> String {
    format!(
        "{} / {}",
        shown(worst(spells, |spell| spell.left)),
        shown(worst(spells, |spell| spell.back))
    )
}

/// The longest; `None` where it did not happen once.
fn worst(spells: &[Spell], of: impl Fn(&Spell) -> Option<Duration>) -> Option<Duration> {
    let all: Option<Vec<Duration>> = spells.iter().map(of).collect();
    all?.into_iter().max()
}

fn misses(time: Option<Duration>) -> bool {
    time.is_none_or(|time| time > BOUND)
}

fn shown(time: Option<Duration>) -> String {
    let mark = if misses(time) { " ✗" } else { "" };
    time.map_or_else(
        || "never ✗".to_owned(),
        |time| format!("{:.1}{mark}", time.as_secs_f32()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::Order;

    #[test]
    fn a_line_has_the_worst_of_each_kind_and_marks_what_misses() {
        let mut figures = Figures::default();
        let spell = |left: Option<u64>, back: u64| Spell {
            noticed: left.map(Duration::from_millis),
            left: left.map(Duration::from_millis),
            met: Duration::ZERO,
            back: Some(Duration::from_millis(back)),
        };
        let killed = Failure::Told(Order::Kill);
        for (behind, spell) in [
            (Behind::Pod, spell(Some(1_250), 2_000)),
            (Behind::Pod, spell(Some(2_100), 1_000)),
            (Behind::Vm, spell(Some(5_200), 1_500)),
            (Behind::Address, spell(None, 1_500)),
        ] {
            figures.add(killed, (Check::Tcp, behind), spell);
        }
        let table = figures.table();
        let line = "| process killed | tcp | 2.1 / 2.0 | 5.2 ✗ / 1.5 | – | never ✗ / 1.5 | never ✗ / 2.0 |";
        assert!(table.contains(line), "{table}");
        assert!(table.contains("Misses: 2."), "{table}");
    }
}
