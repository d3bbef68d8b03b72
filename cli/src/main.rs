//! `ottla`: the one binary. Servers, admin commands and clients; see `ottla --help`.

mod access;
mod admin;
mod allocator;
mod arguments;
mod calendar;
mod client;
mod command;
mod doctor;
mod failure;
mod http_client;
mod node_config;
mod output;
mod parse;
mod profile;
mod scram;
mod server;

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: allocator::BySize = allocator::BySize;

fn main() -> ExitCode {
    match arguments::read(std::env::args_os()) {
        Ok(arguments) => match command::run(arguments) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => failure::report(&error),
        },
        Err(error) => {
            // Help and version are asked for: stdout and 0. All else is a wrong call: stderr and 2.
            let code = if error.use_stderr() { failure::USAGE } else { 0 };
            // Nothing is left to be done when the terminal is gone.
            drop(error.print());
            ExitCode::from(code)
        }
    }
}
