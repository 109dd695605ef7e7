fn main() {
    let mut buffer = itoa::Buffer::new();
    println!("Hello from Rust, {} times out of {}.", buffer.format(42_u8), itoa::Buffer::new().format(u64::MAX));
}
