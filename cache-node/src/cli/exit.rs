//! Exit codes, and the failures behind them.

/// All went well.
pub const OK: u8 = 0;
/// Something failed while running.
pub const FAILED: u8 = 1;
/// The command line or the configuration is wrong: `EX_USAGE` of BSD's `sysexits.h`.
pub const USAGE: u8 = 64;

/// Why a command failed: what to say, and the exit code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    text: String,
    code: u8,
}

impl Failure {
    /// Something failed while running.
    pub fn run(error: impl ToString) -> Self {
        Self { text: error.to_string(), code: FAILED }
    }

    /// What was asked for is wrong.
    pub fn usage(error: impl ToString) -> Self {
        Self { text: error.to_string(), code: USAGE }
    }

    /// What to say, ending in a line end.
    pub fn text(&self) -> String {
        format!("{}\n", self.text.trim_end())
    }

    /// The exit code.
    pub fn code(&self) -> u8 {
        self.code
    }
}
