//! Compiles `hgat/v1/*.proto` with protox, so no `protoc` has to be installed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = [
        "hgat/v1/run.proto",
        "hgat/v1/worker.proto",
        "hgat/v1/spec.proto",
        "hgat/v1/store.proto",
    ];
    for file in files {
        println!("cargo:rerun-if-changed={file}");
    }
    let descriptors = protox::compile(files, ["."])?;
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    // The descriptor set is what gRPC reflection answers from.
    std::fs::write(
        out.join("hgat.v1.bin"),
        prost::Message::encode_to_vec(&descriptors),
    )?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
