//! `steading`, the program: everything is in the library beside it, so that fuzz targets reach what it reads.

fn main() -> std::process::ExitCode {
    cli::main()
}
