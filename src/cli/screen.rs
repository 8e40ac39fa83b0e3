//! The output: tables for people, JSON for programs, and colours and progress bars for terminals.

use std::io::{self, BufWriter, IsTerminal as _, StdoutLock, Write};
use std::time::Duration;

use comfy_table::{CellAlignment, ContentArrangement, LineStyle, Row, Table, presets};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use super::failure::{Failure, in_one_line};

/// How often a progress bar is redrawn while nothing changes.
const TICK: Duration = Duration::from_millis(120);

/// The alignment of a column; numbers are aligned to the right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Left,
    Right,
}

/// Standard output and its properties.
pub struct Screen {
    out: BufWriter<StdoutLock<'static>>,
    /// Whether to print JSON instead of tables.
    pub json: bool,
    /// Whether standard output is a terminal.
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
    /// Standard output was closed or cannot be written.
    pub fn raw(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        Ok(self.out.write_all(bytes)?)
    }

    /// Writes a line.
    ///
    /// # Errors
    /// Standard output was closed or cannot be written.
    pub fn line(&mut self, text: &str) -> Result<(), Failure> {
        Ok(writeln!(self.out, "{text}")?)
    }

    /// Writes a JSON document on a line of its own.
    ///
    /// # Errors
    /// Standard output was closed or cannot be written.
    pub fn document(&mut self, document: &impl Serialize) -> Result<(), Failure> {
        serde_json::to_writer(&mut self.out, document).map_err(io::Error::from)?;
        self.line("")
    }

    /// Writes all buffered output to standard output.
    ///
    /// # Errors
    /// Standard output was closed or cannot be written.
    pub fn flush(&mut self) -> Result<(), Failure> {
        Ok(self.out.flush()?)
    }

    /// Writes a table with a heading for each column.
    ///
    /// # Errors
    /// Standard output was closed or cannot be written.
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

    /// Writes names and values, one pair per line.
    ///
    /// # Errors
    /// Standard output was closed or cannot be written.
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
            // Control characters in stored data must not move the cursor or break the line.
            table.add_row(Row::from(cells.iter().map(|cell| in_one_line(cell)).collect::<Vec<_>>()));
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
    }

    /// Writes a table without spaces at the ends of its lines. The first `bold` lines are bold.
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

    /// Dimmed text.
    pub fn dim(&self, text: &str) -> String {
        self.painted("2", text)
    }

    /// Text in the colour of warnings.
    pub fn warning(&self, text: &str) -> String {
        self.painted("33", text)
    }

    fn painted(&self, style: &str, text: &str) -> String {
        if self.is_coloured { format!("\x1b[{style}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// Clears the terminal.
    ///
    /// # Errors
    /// Standard output was closed or cannot be written.
    pub fn clear(&mut self) -> Result<(), Failure> {
        self.raw(b"\x1b[H\x1b[2J")
    }
}

fn align(table: &mut Table, column: usize, side: Side) {
    if let (Side::Right, Some(column)) = (side, table.column_mut(column)) {
        column.set_cell_alignment(CellAlignment::Right);
    }
}

/// Whether colours may be used: not with `NO_COLOR` (<https://no-color.org>), and not on a `dumb` terminal.
fn may_colour() -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    !refused && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// A progress bar on stderr for `total` steps, or a spinner if the total is unknown. `is_alone` says that the command
/// writes no output to the terminal while the bar is shown. The bar is hidden if stderr is not a terminal, or if it
/// is not alone, because it would appear between the lines of the output.
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
    // If the template is invalid, the default style is good enough.
    let style = ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::with_draw_target(total, target).with_style(style).with_message(text);
    if !bar.is_hidden() {
        bar.enable_steady_tick(TICK);
    }
    bar
}

/// A spinner on stderr for a single request that may take long.
pub fn spinner(text: &'static str) -> ProgressBar {
    let bar = bar(text, None, true);
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}, {elapsed}") {
        bar.set_style(style);
    }
    bar
}
