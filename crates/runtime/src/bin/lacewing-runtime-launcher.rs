//! The sandbox launcher as a program of its own, for this crate's tests. It never serves.

fn main() -> std::process::ExitCode {
    lacewing_sandbox::launcher_main()
}
