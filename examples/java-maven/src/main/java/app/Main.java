package app;

/** Says hello. */
public final class Main {
    private Main() {}

    public static void main(String[] arguments) {
        System.out.println("Hello from Java " + Runtime.version().feature() + ", as " + System.getProperty("user.name") + ".");
    }
}
