//! Compiles the few lines of C++ around Boost's message queue, if its headers are there.

fn main() {
    println!("cargo::rerun-if-changed=src/boost.cpp");
    let compiled = cc::Build::new()
        .cpp(true)
        .std("c++17")
        .opt_level(3)
        .define("NDEBUG", None)
        .warnings(false)
        .file("src/boost.cpp")
        .try_compile("boost_queue");
    match compiled {
        Ok(()) => println!("cargo::rustc-cfg=boost"),
        Err(_) => {
            println!("cargo::warning=Boost.Interprocess is left out: its headers (libboost-dev) are missing");
        }
    }
}
