//! Lets the binary find libtorch by rpath, so that nobody has to set LD_LIBRARY_PATH.

fn main() {
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    if let Ok(lib_dir) = std::env::var("DEP_NCCL_RS_SHIM_LIB_DIR") {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{lib_dir}");
    }
}
