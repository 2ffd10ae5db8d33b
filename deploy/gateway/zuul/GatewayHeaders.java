package hanmadi.gateway;

import java.net.URLEncoder;
import java.nio.charset.StandardCharsets;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Set;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * What a gateway does to the headers of a request for hanmadi, with nothing of
 * Zuul in it. Every request loses what only the gateway may say, in any spelling
 * (see {@link #isOurs}), and then gets what the gateway says (see {@link #says}).
 *
 * <p>hanmadi's tests compile this class and run GatewayHeadersTest.
 */
public final class GatewayHeaders {
    static final String USER = "x-forward-userIdx";
    static final String NICKNAME = "x-forward-nickname";
    static final String EMAIL = "x-forward-email";
    static final String TOKEN = "token";

    /** What hanmadi takes for the id of a user; others it would refuse. */
    private static final Pattern ID = Pattern.compile("[A-Za-z0-9][A-Za-z0-9_-]{0,63}");

    private static final Pattern TOKEN_COOKIE =
            Pattern.compile("(?:^|;)\\s*token=([A-Za-z0-9_-]+\\.[A-Za-z0-9_-]+\\.[A-Za-z0-9_-]+)\\s*(?:;|$)");

    private final String secretHeader;
    private final String secret;
    private final Set<String> ours;

    /** Takes gateway.header and gateway.secret of hanmadi's settings. */
    public GatewayHeaders(String secretHeader, String secret) {
        if (secret == null || secret.length() < 32) {
            throw new IllegalArgumentException("gateway.secret has at least 32 characters");
        }
        this.secretHeader = secretHeader;
        this.secret = secret;
        this.ours = Set.of(normal(secretHeader), normal(USER), normal(NICKNAME), normal(EMAIL));
    }

    /**
     * Whether a header that came in is one that only the gateway may set. Some
     * servers read X_Forward_Useridx as X-Forward-Useridx, so an underscore is
     * the same as a hyphen.
     */
    public boolean isOurs(String name) {
        return ours.contains(normal(name));
    }

    private static String normal(String name) {
        return name.toLowerCase(Locale.ROOT).replace('_', '-');
    }

    /**
     * The headers to set, once those of ours are gone.
     *
     * @param userIdx who is logged in, as the gateway's own filter found; null for nobody
     * @param nickname their name, as it is shown; null for none
     * @param token the header token that came in; null for none
     * @param cookies the headers Cookie that came in
     */
    public Map<String, String> says(String userIdx, String nickname, String token, List<String> cookies) {
        Map<String, String> headers = new LinkedHashMap<>();
        headers.put(secretHeader, secret);
        if (userIdx != null && ID.matcher(userIdx).matches()) {
            headers.put(USER, userIdx);
            if (nickname != null && !nickname.isEmpty()) {
                headers.put(NICKNAME, URLEncoder.encode(nickname, StandardCharsets.UTF_8));
            }
        }
        // An app's own header beats the cookie of a page. hanmadi verifies either.
        if (token == null) {
            String fromCookie = tokenOf(cookies);
            if (fromCookie != null) {
                headers.put(TOKEN, fromCookie);
            }
        }
        return headers;
    }

    /** The cookie named token; null where there is none, or several that differ. */
    static String tokenOf(List<String> cookies) {
        String found = null;
        for (String cookie : cookies) {
            Matcher m = TOKEN_COOKIE.matcher(cookie);
            for (int from = 0; m.find(from); from = m.end(1)) {
                if (found != null && !found.equals(m.group(1))) {
                    return null;
                }
                found = m.group(1);
            }
        }
        return found;
    }

    /** Whether a path is a WebSocket's, which goes around Zuul. */
    public static boolean goesAround(String path) {
        return path.equals("/v1/presenter") || path.equals("/chatting");
    }
}
