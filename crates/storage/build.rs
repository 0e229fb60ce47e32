//! Links liblvm2cmd: it has no pkg-config file, and the linker finds it in the sysroot.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-link-lib=dylib=lvm2cmd");
}
