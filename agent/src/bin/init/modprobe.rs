//! `/sbin/modprobe`, as the kernel calls it: `modprobe -q -- NAME`.
//!
//! `-q` says nothing of a name that no module answers to; `-a` is accepted (all names are loaded
//! anyway). Everything else that modprobe can do, nobody here asks for.

use std::process::ExitCode;

use host::module::{self, ModuleError};

/// Loads what the arguments name.
pub fn run(arguments: impl Iterator<Item = String>) -> ExitCode {
    let (quiet, names) = match parse(arguments) {
        Ok(parsed) => parsed,
        Err(unknown) => {
            eprintln!("modprobe: unknown option {unknown}; usage: modprobe [-q] [-a] [--] NAME...");
            return ExitCode::from(2);
        }
    };
    let index = match module::of_running_kernel() {
        Ok(index) => index,
        Err(error) => {
            eprintln!("modprobe: {}", crate::console::chain(&error));
            return ExitCode::FAILURE;
        }
    };
    let mut code = ExitCode::SUCCESS;
    for name in names {
        if let Err(error) = module::load(&index, &name) {
            if !(quiet && matches!(error, ModuleError::Unknown(_))) {
                eprintln!("modprobe: {}", crate::console::chain(&error));
            }
            code = ExitCode::FAILURE;
        }
    }
    code
}

/// Whether to be quiet, and the names; or the option that is not known.
fn parse(arguments: impl Iterator<Item = String>) -> Result<(bool, Vec<String>), String> {
    let (mut quiet, mut names, mut options) = (false, Vec::new(), true);
    for argument in arguments {
        match argument.as_str() {
            "--" if options => options = false,
            "--quiet" if options => quiet = true,
            "--all" if options => {}
            short if options && short.starts_with('-') => {
                for letter in short.chars().skip(1) {
                    match letter {
                        'q' => quiet = true,
                        'a' => {}
                        _ => return Err(short.to_owned()),
                    }
                }
            }
            name => names.push(name.to_owned()),
        }
    }
    Ok((quiet, names))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<(bool, Vec<String>), String> {
        parse(line.split_whitespace().map(String::from))
    }

    #[test]
    fn the_kernels_call_is_understood() {
        assert_eq!(parsed("-q -- fs-ext4"), Ok((true, vec!["fs-ext4".into()])));
        assert_eq!(
            parsed("-qa dm-crypt dm-mod"),
            Ok((true, vec!["dm-crypt".into(), "dm-mod".into()]))
        );
        assert_eq!(parsed("-- -q"), Ok((false, vec!["-q".into()])));
        assert_eq!(parsed("-r ext4"), Err("-r".into()));
    }
}
