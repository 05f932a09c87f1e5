//! The CNI plugin.

fn main() -> std::process::ExitCode {
    ycloud_node::plugin::main()
}
