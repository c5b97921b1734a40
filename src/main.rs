//! The one binary: reads the command line, runs a role or an operator's command, and exits with the contract's code.

#![expect(unreachable_pub, reason = "a binary exports nothing; `pub` marks what a file offers to its neighbours")]

use std::process::ExitCode;

mod cli;
mod image;
mod role;

fn main() -> ExitCode {
    let arguments = match cli::Arguments::read() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are no errors; clap prints them on stdout, the rest on stderr.
            let code = if error.use_stderr() { cli::failure::Code::Usage as u8 } else { 0 };
            error.print().ok(); // Nothing can be said when the terminal is gone.
            return ExitCode::from(code);
        }
    };
    match cli::run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::from(failure.code as u8)
        }
    }
}
