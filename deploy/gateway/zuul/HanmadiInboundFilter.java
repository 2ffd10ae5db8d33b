// This file was neither compiled nor run here: it needs Zuul 2 (com.netflix.zuul:zuul-core). What it decides is in GatewayHeaders, which was.
package hanmadi.gateway;

import com.netflix.zuul.context.SessionContext;
import com.netflix.zuul.filters.http.HttpInboundSyncFilter;
import com.netflix.zuul.message.Headers;
import com.netflix.zuul.message.http.HttpRequestMessage;
import java.util.Map;

/**
 * Puts into each request for hanmadi what hanmadi believes, and takes away what
 * a client claims. It runs after the platform's own filter that knows who is
 * logged in, which leaves that in the session's context under the two names
 * below, and it blocks on nothing.
 */
public class HanmadiInboundFilter extends HttpInboundSyncFilter {
    /** Where the platform's filter leaves who is logged in. */
    private static final String USER = "userIdx";
    private static final String NICKNAME = "nickname";

    private final GatewayHeaders gateway =
            new GatewayHeaders("X-Gateway-Secret", System.getenv("HANMADI_GATEWAY_SECRET"));

    @Override
    public int filterOrder() {
        return 100; // behind the filter that knows who is logged in
    }

    @Override
    public boolean shouldFilter(HttpRequestMessage request) {
        String path = request.getPath();
        return path.startsWith("/v1/rooms/") || path.equals("/send/message");
    }

    @Override
    public HttpRequestMessage apply(HttpRequestMessage request) {
        Headers headers = request.getHeaders();
        headers.removeIf(header -> gateway.isOurs(header.getKey().getName()));
        SessionContext context = request.getContext();
        Map<String, String> says = gateway.says((String) context.get(USER), (String) context.get(NICKNAME),
                headers.getFirst("token"), headers.getAll("cookie"));
        says.forEach(headers::set);
        return request;
    }
}
