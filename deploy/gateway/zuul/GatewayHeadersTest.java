package hanmadi.gateway;

import java.util.List;
import java.util.Map;
import java.util.Objects;

/** Checks GatewayHeaders with the JDK alone. Prints how much it checked, or throws. */
public final class GatewayHeadersTest {
    private static final String SECRET = "a secret of the tests, 32 characters or more";
    private static int checked;

    public static void main(String[] args) {
        GatewayHeaders headers = new GatewayHeaders("X-Gateway-Secret", SECRET);
        strips(headers);
        says(headers);
        cookies();
        same("a short secret", refusesSecret("short"), true);
        same("no secret", refusesSecret(null), true);
        same("the link goes around", GatewayHeaders.goesAround("/v1/presenter"), true);
        same("the old link goes around", GatewayHeaders.goesAround("/chatting"), true);
        same("a line does not", GatewayHeaders.goesAround("/v1/rooms/7/messages"), false);
        System.out.println("checked " + checked);
    }

    private static void strips(GatewayHeaders headers) {
        for (String name : List.of("x-forward-userIdx", "X-FORWARD-USERIDX", "x_forward_useridx", "X-Forward_Useridx", "x-forward-nickname",
                "X_Forward_Nickname", "x-forward-email", "X_FORWARD_EMAIL", "x-gateway-secret", "X_Gateway_Secret")) {
            same(name, headers.isOurs(name), true);
        }
        for (String name : List.of("x-forwarded-for", "authorization", "token", "cookie", "x-forward-useridx2", "idempotency-key")) {
            same(name, headers.isOurs(name), false);
        }
    }

    private static void says(GatewayHeaders headers) {
        List<String> none = List.of();
        same("nobody", headers.says(null, null, null, none), Map.of("X-Gateway-Secret", SECRET));
        same("somebody", headers.says("42", "하늘 별, A+B", null, none), Map.of("X-Gateway-Secret", SECRET, "x-forward-userIdx", "42",
                "x-forward-nickname", "%ED%95%98%EB%8A%98+%EB%B3%84%2C+A%2BB"));
        same("no name", headers.says("42", "", null, none), Map.of("X-Gateway-Secret", SECRET, "x-forward-userIdx", "42"));
        for (String bad : List.of("", "a b", "7, 8", "-7", "7\r\nX-Forward-Useridx: 8", "x".repeat(65))) {
            same("no id: " + bad, headers.says(bad, "name", null, none), Map.of("X-Gateway-Secret", SECRET));
        }
        same("a cookie", headers.says(null, null, null, List.of("a=b; token=x.y.z")).get("token"), "x.y.z");
        same("the app's own header", headers.says(null, null, "own", List.of("token=x.y.z")).containsKey("token"), false);
    }

    private static void cookies() {
        same("first", GatewayHeaders.tokenOf(List.of("token=x.y.z; a=b")), "x.y.z");
        same("in the second header", GatewayHeaders.tokenOf(List.of("a=b", "token=x.y.z")), "x.y.z");
        same("twice the same", GatewayHeaders.tokenOf(List.of("token=x.y.z; token=x.y.z")), "x.y.z");
        same("two that differ", GatewayHeaders.tokenOf(List.of("token=x.y.z; token=u.v.w")), null);
        same("another's end", GatewayHeaders.tokenOf(List.of("mytoken=x.y.z")), null);
        same("no token", GatewayHeaders.tokenOf(List.of("token=abc", "token=")), null);
        same("none", GatewayHeaders.tokenOf(List.of()), null);
    }

    private static boolean refusesSecret(String secret) {
        try {
            new GatewayHeaders("X-Gateway-Secret", secret);
            return false;
        } catch (IllegalArgumentException e) {
            return true;
        }
    }

    private static void same(String what, Object got, Object want) {
        checked++;
        if (!Objects.equals(got, want)) {
            throw new AssertionError(what + ": got " + got + ", want " + want);
        }
    }
}
