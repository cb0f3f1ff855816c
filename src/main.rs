//! temporary
use coracle::demo::Demo;
fn main() {
    coracle::logging::install(log::LevelFilter::Debug);
    let signals =
        async_signal::Signals::new([async_signal::Signal::Term, async_signal::Signal::Int])
            .expect("signals");
    let stops = smol::stream::StreamExt::map(signals, |s| match s {
        Ok(async_signal::Signal::Int) => "SIGINT",
        _ => "SIGTERM",
    });
    match Demo::start(
        "127.0.0.1:8080".parse().expect("a"),
        "127.0.0.1:2672".parse().expect("a"),
    ) {
        Err(e) => eprintln!("{e}"),
        Ok(demo) => {
            print!("{}", demo.guide());
            demo.start_client();
            println!("{:?}", demo.proxy.run(stops));
            log::logger().flush();
        }
    }
}
