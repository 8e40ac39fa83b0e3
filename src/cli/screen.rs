//! Where answers are shown: tables for people, JSON for programs, and what a terminal can do beyond.

use std::io::{self, BufWriter, IsTerminal as _, StdoutLock, Write};
use std::time::Duration;

use comfy_table::{CellAlignment, ContentArrangement, LineStyle, Row, Table, presets};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use super::failure::Failure;

/// How often a bar is drawn while nothing moves.
const TICK: Duration = Duration::from_millis(120);

/// On which side of a column its cells stand: numbers to the right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Left,
    Right,
}

/// Standard output, and what is known of it.
pub struct Screen {
    out: BufWriter<StdoutLock<'static>>,
    /// Whether programs read: JSON instead of tables.
    pub json: bool,
    /// Whether it is a terminal.
    pub is_terminal: bool,
    is_coloured: bool,
    width: Option<u16>,
}

impl Screen {
    pub fn new(json: bool) -> Self {
        let stdout = io::stdout();
        let is_terminal = stdout.is_terminal();
        let width = rustix::termios::tcgetwinsize(&stdout).ok().map(|size| size.ws_col).filter(|width| *width > 0);
        Self {
            out: BufWriter::new(stdout.lock()),
            json,
            is_terminal,
            is_coloured: is_terminal && may_colour(),
            width: width.filter(|_| is_terminal),
        }
    }

    /// Writes bytes as they are.
    ///
    /// # Errors
    /// Whoever read is gone.
    pub fn raw(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        Ok(self.out.write_all(bytes)?)
    }

    /// # Errors
    /// Whoever read is gone.
    pub fn line(&mut self, text: &str) -> Result<(), Failure> {
        Ok(writeln!(self.out, "{text}")?)
    }

    /// A JSON document on a line of its own.
    ///
    /// # Errors
    /// Whoever read is gone.
    pub fn document(&mut self, document: &impl Serialize) -> Result<(), Failure> {
        serde_json::to_writer(&mut self.out, document).map_err(io::Error::from)?;
        self.line("")
    }

    /// Lets readers have what was written.
    ///
    /// # Errors
    /// Whoever read is gone.
    pub fn flush(&mut self) -> Result<(), Failure> {
        Ok(self.out.flush()?)
    }

    /// Columns under their names.
    ///
    /// # Errors
    /// Whoever read is gone.
    pub fn table(&mut self, columns: &[(&str, Side)], rows: Vec<Vec<String>>) -> Result<(), Failure> {
        let mut table = self.empty_table();
        if self.is_terminal {
            table.style_mut().header_separator = LineStyle::none().fill('─');
        }
        table.set_header(columns.iter().map(|(name, _)| *name).collect::<Vec<_>>());
        self.fill(&mut table, rows);
        for (column, (_, side)) in columns.iter().enumerate() {
            align(&mut table, column, *side);
        }
        self.show(&table, 1)
    }

    /// Names with their values, one a line.
    ///
    /// # Errors
    /// Whoever read is gone.
    pub fn fields(&mut self, side: Side, fields: Vec<(&str, String)>) -> Result<(), Failure> {
        let mut table = self.empty_table();
        self.fill(&mut table, fields.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect());
        align(&mut table, 1, side);
        self.show(&table, 0)
    }

    fn empty_table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        match self.width {
            Some(width) => table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width),
            None => table.set_content_arrangement(ContentArrangement::Disabled),
        };
        table
    }

    fn fill(&self, table: &mut Table, rows: Vec<Vec<String>>) {
        for cells in rows {
            // What users stored is not to move the cursor, nor to break the line.
            let cells = cells.iter().map(|cell| cell.chars().map(|c| if c.is_control() { ' ' } else { c }).collect());
            table.add_row(Row::from(cells.collect::<Vec<String>>()));
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
    }

    /// Without the spaces at the ends of lines; the first `bold` lines stand out.
    fn show(&mut self, table: &Table, bold: usize) -> Result<(), Failure> {
        for (number, line) in table.lines().enumerate() {
            let line = line.trim_end();
            if number < bold && self.is_coloured {
                self.line(&format!("\x1b[1m{line}\x1b[0m"))?;
            } else {
                self.line(line)?;
            }
        }
        Ok(())
    }

    /// Text that stands back.
    pub fn dim(&self, text: &str) -> String {
        self.painted("2", text)
    }

    /// Text that warns.
    pub fn warning(&self, text: &str) -> String {
        self.painted("33", text)
    }

    fn painted(&self, style: &str, text: &str) -> String {
        if self.is_coloured { format!("\x1b[{style}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// Begins a terminal's screen anew.
    ///
    /// # Errors
    /// Whoever read is gone.
    pub fn clear(&mut self) -> Result<(), Failure> {
        self.raw(b"\x1b[H\x1b[2J")
    }
}

fn align(table: &mut Table, column: usize, side: Side) {
    if let (Side::Right, Some(column)) = (side, table.column_mut(column)) {
        column.set_cell_alignment(CellAlignment::Right);
    }
}

/// <https://no-color.org>, and terminals that say they cannot.
fn may_colour() -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    !refused && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// A bar on stderr for work of `total` parts, or a spinner where that is not known; hidden where no person
/// watches, or where it would stand between the lines of the answer.
pub fn bar(text: &'static str, total: Option<u64>, is_alone: bool) -> ProgressBar {
    let target = match is_alone && io::stderr().is_terminal() {
        true => ProgressDrawTarget::stderr(),
        false => ProgressDrawTarget::hidden(),
    };
    let colour = |part: &str| if may_colour() { format!("{{{part}.cyan}}") } else { format!("{{{part}}}") };
    let template = match total {
        Some(_) => format!("{{msg}} {} {{human_pos}}/{{human_len}}, {{eta}} left", colour("bar:30")),
        None => format!("{} {{msg}} {{human_pos}}, {{elapsed}}", colour("spinner")),
    };
    // A bar without a template still is one.
    let style = ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::with_draw_target(total, target).with_style(style).with_message(text);
    if !bar.is_hidden() {
        bar.enable_steady_tick(TICK);
    }
    bar
}

/// The same for one request that may take long.
pub fn spinner(text: &'static str) -> ProgressBar {
    let bar = bar(text, None, true);
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}, {elapsed}") {
        bar.set_style(style);
    }
    bar
}
