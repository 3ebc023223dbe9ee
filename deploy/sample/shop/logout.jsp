<%@ page session="false" trimDirectiveWhitespaces="true" %><%--
  Ends the session and deletes its cookie; the next click begins a new one, on the current release.
--%><%
  HttpSession old = request.getSession(false);
  if (old != null) old.invalidate();
  Cookie cookie = new Cookie("JSESSIONID", "");
  cookie.setPath(request.getContextPath());
  cookie.setMaxAge(0);
  cookie.setHttpOnly(true);
  response.addCookie(cookie);
  response.sendRedirect("./");
%>
