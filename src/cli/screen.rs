//! The output: tables for people, JSON for programs, and colours and progress bars for terminals.

use std::io::{self, BufWriter, IsTerminal as _, StdoutLock, Write};
use std::time::Duration;

use comfy_table::{CellAlignment, ContentArrangement, LineStyle, Table, presets};
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

/// Standard output and its properties. The functions that write fail if standard output was closed or cannot be
/// written.
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
    pub fn raw(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        Ok(self.out.write_all(bytes)?)
    }

    /// Writes a line.
    pub fn line(&mut self, text: &str) -> Result<(), Failure> {
        Ok(writeln!(self.out, "{text}")?)
    }

    /// Writes a JSON document on a line of its own.
    pub fn document(&mut self, document: &impl Serialize) -> Result<(), Failure> {
        serde_json::to_writer(&mut self.out, document).map_err(io::Error::from)?;
        self.line("")
    }

    /// Writes the result of a command: the document with `--json`, the line without.
    pub fn result(&mut self, document: &impl Serialize, line: &str) -> Result<(), Failure> {
        if self.json { self.document(document) } else { self.line(line) }
    }

    /// Writes all buffered output to standard output.
    pub fn flush(&mut self) -> Result<(), Failure> {
        Ok(self.out.flush()?)
    }

    /// Writes a table with a heading for each column.
    pub fn table(&mut self, columns: &[(&str, Side)], rows: Vec<Vec<String>>) -> Result<(), Failure> {
        let mut table = self.filled(rows);
        if self.is_terminal {
            table.style_mut().header_separator = LineStyle::none().fill('─');
        }
        table.set_header(columns.iter().map(|(name, _)| *name).collect::<Vec<_>>());
        let sides: Vec<Side> = columns.iter().map(|(_, side)| *side).collect();
        self.show(table, &sides, 1)
    }

    /// Writes names and values, one pair per line.
    pub fn fields(&mut self, side: Side, fields: Vec<(&str, String)>) -> Result<(), Failure> {
        let rows = fields.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect();
        self.show(self.filled(rows), &[Side::Left, side], 0)
    }

    fn filled(&self, rows: Vec<Vec<String>>) -> Table {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        match self.width {
            Some(width) => table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width),
            None => table.set_content_arrangement(ContentArrangement::Disabled),
        };
        // Control characters in stored data must not move the cursor or break the line.
        let in_one_line = |cells: Vec<String>| cells.iter().map(|cell| in_one_line(cell)).collect::<Vec<_>>();
        table.add_rows(rows.into_iter().map(in_one_line));
        table
    }

    /// Writes a table without spaces at the ends of its lines. The first `bold` lines are bold.
    fn show(&mut self, mut table: Table, sides: &[Side], bold: usize) -> Result<(), Failure> {
        for (column, side) in table.column_iter_mut().zip(sides) {
            column.set_padding((0, 2));
            if *side == Side::Right {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        for (number, line) in table.lines().enumerate() {
            let line = line.trim_end();
            let line = if number < bold { self.painted("1", line) } else { line.to_owned() };
            self.line(&line)?;
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
    let template = match total {
        Some(_) => "{msg} {bar:30.cyan} {human_pos}/{human_len}, {eta} left",
        None => "{spinner.cyan} {msg} {human_pos}, {elapsed}",
    };
    // If the template is invalid, the default style is good enough.
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::with_draw_target(total, target).with_style(style).with_message(text);
    if !bar.is_hidden() {
        bar.enable_steady_tick(TICK);
    }
    bar
}

/// Does work that may take long, such as a single request, and meanwhile shows a spinner on stderr.
pub fn with_spinner<T>(text: &'static str, work: impl FnOnce() -> T) -> T {
    let bar = bar(text, None, true);
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}, {elapsed}") {
        bar.set_style(style);
    }
    let result = work();
    bar.finish_and_clear();
    result
}

/// Writes a line to stderr. Errors are ignored: a caller that closed stderr does not want the line.
pub fn message(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}
