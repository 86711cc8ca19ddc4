//! The version of every program, with its commit, and its completion script.

use std::io::{ErrorKind, Write};

use clap::CommandFactory;

use crate::run::Exit;

/// Version and commit of this build.
pub const VERSION: &str = env!("CAUSEWAY_VERSION");

/// Print the completion script of a shell
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::Args)]
pub struct CompletionArgs {
    /// Shell to complete in
    pub shell: clap_complete::Shell,
}

impl CompletionArgs {
    /// Prints the script for the command line `C`. A reader that closes the pipe early is no failure.
    pub fn print<C: CommandFactory>(self) -> Exit {
        match std::io::stdout().write_all(&self.script::<C>()) {
            // The Rust runtime ignores SIGPIPE, so that a closed pipe (`| head`) comes as EPIPE.
            Err(error) if error.kind() != ErrorKind::BrokenPipe => Exit::Failed,
            _ => Exit::Done,
        }
    }

    fn script<C: CommandFactory>(self) -> Vec<u8> {
        let mut command = C::command();
        let mut script = Vec::new();
        let name = command.get_name().to_owned();
        clap_complete::generate(self.shell, &mut command, name, &mut script);
        script
    }
}

#[cfg(test)]
mod tests {
    //! The script completes the program's own words.

    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    #[command(name = "causeway-thing", version = VERSION)]
    struct Thing {
        #[arg(long)]
        some_flag: bool,
    }

    #[test]
    fn a_completion_script_knows_the_program_and_its_flags() {
        let script = CompletionArgs { shell: clap_complete::Shell::Bash }.script::<Thing>();
        let script = String::from_utf8(script).unwrap();
        assert!(script.contains("causeway-thing") && script.contains("--some-flag"));
    }
}
